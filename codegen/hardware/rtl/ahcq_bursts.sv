// Splits the rows of a DMA into bursts: at most 16 beats, never across 4 KiB. A row that starts within a beat has one more.
module ahcq_bursts #(
  parameter int unsigned BusChunks = 1
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        start_i,
  input  logic [31:0] address_i,   // this and what follows: one cycle after the start
  input  logic [19:0] stride_i,
  input  logic [11:0] rows_i,
  input  logic [11:0] length_i,  // chunks of a row
  input  logic        stop_i,     // offers no further burst
  output logic        valid_o,
  input  logic        ready_i,
  output logic [31:0] address_o,
  output logic [7:0]  beats_o,   // minus 1
  output logic        busy_o
);
  localparam int unsigned Wide = $clog2(BusChunks);

  logic start_q, active_q, ready_q, row_ends_q;
  logic [31:0] row_q, at_q;
  logic [19:0] stride_q;
  logic [11:0] rows_q, length_q;
  logic [12:0] left_q, burst_q;
  logic [12:0] to_page;

  function automatic logic [11:0] beats(logic [11:0] chunks);
    return 12'((13'(chunks) + 13'(BusChunks - 1)) >> Wide);
  endfunction

  assign to_page = 13'(4096 / 8 / BusChunks) - 13'(at_q[11:3+Wide]);
  assign valid_o = ready_q;
  assign address_o = {at_q[31:3+Wide], (3 + Wide)'(0)};
  assign beats_o = 8'(burst_q - 13'd1);
  assign busy_o = start_q || active_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      start_q <= 1'b0;
      active_q <= 1'b0;
      ready_q <= 1'b0;
    end else if (start_q) begin
      start_q <= 1'b0;
      active_q <= 1'b1;
      ready_q <= 1'b0;
    end else begin
      start_q <= start_i;
      if (active_q && !ready_q) begin
        ready_q <= !stop_i;
      end else if (valid_o && ready_i) begin
        ready_q <= 1'b0;
        active_q <= !row_ends_q || rows_q != 12'd1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_q) begin
      row_q <= address_i;
      at_q <= address_i;
      stride_q <= stride_i;
      rows_q <= rows_i;
      length_q <= beats(length_i);
      left_q <= 13'(beats(length_i)) + 13'(address_i[2+Wide:2] != '0);
    end else if (active_q && !ready_q) begin
      row_ends_q <= left_q <= 13'd16 && left_q <= to_page;
      burst_q <= left_q < 13'd16 ? (left_q < to_page ? left_q : to_page) : (to_page < 13'd16 ? to_page : 13'd16);
    end else if (valid_o && ready_i) begin
      if (!row_ends_q) begin
        left_q <= left_q - burst_q;
        at_q <= {at_q[31:3+Wide] + (29 - Wide)'(burst_q), (3 + Wide)'(0)};
      end else begin
        row_q <= row_q + 32'(stride_q);
        at_q <= row_q + 32'(stride_q);
        rows_q <= rows_q - 1'b1;
        left_q <= 13'(length_q) + 13'(row_q[2+Wide:2] != -stride_q[2+Wide:2]);
      end
    end
  end
endmodule
