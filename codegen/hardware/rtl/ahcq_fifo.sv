// First in, first out; the oldest entry is visible before it is taken.
module ahcq_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned Depth = 4
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             valid_i,
  output logic             ready_o,
  input  logic [Width-1:0] data_i,
  output logic             valid_o,
  input  logic             ready_i,
  output logic [Width-1:0] data_o
);
  localparam int unsigned AddrWidth = $clog2(Depth);

  logic [Width-1:0] mem[Depth];
  logic [AddrWidth:0] level_q;
  logic [AddrWidth-1:0] head_q, tail_q;
  logic push, pop;

  assign ready_o = level_q != (AddrWidth+1)'(Depth);
  assign valid_o = level_q != '0;
  assign data_o = mem[head_q];
  assign push = valid_i && ready_o;
  assign pop = valid_o && ready_i;

  always_ff @(posedge clk_i) if (push) mem[tail_q] <= data_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      level_q <= '0;
      head_q <= '0;
      tail_q <= '0;
    end else begin
      level_q <= level_q + (AddrWidth+1)'(push) - (AddrWidth+1)'(pop);
      if (push) tail_q <= tail_q + 1'b1;
      if (pop) head_q <= head_q + 1'b1;
    end
  end
endmodule
