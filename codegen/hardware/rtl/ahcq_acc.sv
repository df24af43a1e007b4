// Accumulators: a memory for each column in two halves, so that the vector unit reads one half while the array adds to
// the other. The control of a row enters column 0 and moves right with the sums. A word is read, added to and written in
// four cycles; the rows of a tile are other words, and the next tile comes Dim cycles later at the earliest.
module ahcq_acc #(
  parameter int unsigned Dim = 4,
  parameter int unsigned Depth = 16,
  parameter int unsigned SumBits = 16
) (
  input  logic                               clk_i,
  input  logic                               rst_ni,
  input  logic                               coming_i,    // valid in the next cycle
  input  logic                               coming_half_i,
  input  logic                               valid_i,     // two cycles before the sum of column 0
  input  logic [$clog2(Depth)-1:0]           addr_i,
  input  logic                               accumulate_i,
  input  logic                               last_i,
  input  logic signed [Dim-1:0][SumBits-1:0] sums_i,
  output logic                               last_o,      // the row marked last has been written in every column
  input  logic                               read_i,
  output logic                               read_ready_o,
  input  logic [$clog2(Depth)-1:0]           read_addr_i,
  output logic [Dim-1:0][31:0]               read_data_o  // two cycles after the read
);
  localparam int unsigned AddrWidth = $clog2(Depth);
  localparam int unsigned HalfWidth = AddrWidth - 1;
  typedef struct packed {
    logic                 accumulate;
    logic                 last;
    logic [AddrWidth-1:0] addr;
  } control_t;

  logic [Dim:0] valid;
  control_t control[Dim+1];
  logic [1:0] in_use_q;
  logic read_half_q;
  logic [Dim-1:0] valid_q;
  control_t control_q[Dim];

  assign valid[0] = valid_i;
  assign control[0] = '{accumulate: accumulate_i, last: last_i, addr: addr_i};
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= valid[Dim-1:0];
  end
  for (genvar c = 0; c < Dim; c++) begin : gen_move
    always_ff @(posedge clk_i) control_q[c] <= control[c];
    assign valid[c+1] = valid_q[c];
    assign control[c+1] = control_q[c];
  end

  // a half is in use while any column reads it; known one cycle before
  logic [1:0] in_use_d;
  always_comb begin
    in_use_d = '0;
    if (coming_i) in_use_d[coming_half_i] = 1'b1;
    for (int unsigned c = 0; c < Dim - 1; c++) begin
      if (valid[c]) in_use_d[control[c].addr[HalfWidth]] = 1'b1;
    end
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) in_use_q <= '0;
    else in_use_q <= in_use_d;
  end
  assign read_ready_o = !in_use_q[read_addr_i[HalfWidth]];
  always_ff @(posedge clk_i) read_half_q <= read_addr_i[HalfWidth];

  logic write_valid[Dim];
  for (genvar c = 0; c < Dim; c++) begin : gen_column
    logic [1:0][31:0] rdata;
    logic [1:0] use_half, read_half, we;
    logic [31:0] base_q, sum_q;
    logic add_q, write_q;
    control_t add_control_q, write_control_q;

    for (genvar h = 0; h < 2; h++) begin : gen_half
      assign use_half[h] = valid[c] && control[c].addr[HalfWidth] == 1'(h);
      assign read_half[h] = read_i && read_ready_o && read_addr_i[HalfWidth] == 1'(h);
      assign we[h] = write_q && write_control_q.addr[HalfWidth] == 1'(h);
      ahcq_ram #(
        .Width(32),
        .Depth(Depth / 2)
      ) u_ram (
        .clk_i,
        .we_i   (we[h]),
        .waddr_i(write_control_q.addr[HalfWidth-1:0]),
        .wdata_i(sum_q),
        .re_i   (use_half[h] || read_half[h]),
        .raddr_i(use_half[h] ? control[c].addr[HalfWidth-1:0] : read_addr_i[HalfWidth-1:0]),
        .rdata_o(rdata[h])
      );
    end
    always_ff @(posedge clk_i) begin
      base_q <= control_q[c].accumulate ? rdata[control_q[c].addr[HalfWidth]] : '0;
      add_control_q <= control_q[c];
      sum_q <= 32'(signed'(sums_i[c])) + base_q;
      write_control_q <= add_control_q;
    end
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        add_q <= 1'b0;
        write_q <= 1'b0;
      end else begin
        add_q <= valid_q[c];
        write_q <= add_q;
      end
    end
    always_ff @(posedge clk_i) read_data_o[c] <= rdata[read_half_q];
    assign write_valid[c] = write_q && write_control_q.last;
  end
  assign last_o = write_valid[Dim-1];
endmodule
