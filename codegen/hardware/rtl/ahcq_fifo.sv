// First in, first out; the oldest entry is visible before it is taken. It waits in a register, the others in a memory.
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
  logic [Width-1:0] oldest_q;
  logic [AddrWidth:0] level_d, level_q;  // all entries
  logic [AddrWidth:0] stored_q;          // those in the memory
  logic [AddrWidth-1:0] head_q, tail_q;
  logic push, pop, oldest_valid_q, refill, store, load;

  assign level_d = level_q + (AddrWidth+1)'(push) - (AddrWidth+1)'(pop);
  assign valid_o = oldest_valid_q;
  assign data_o = oldest_q;
  assign push = valid_i && ready_o;
  assign pop = oldest_valid_q && ready_i;
  assign refill = !oldest_valid_q || ready_i;
  assign load = refill && stored_q != '0;
  assign store = push && !(refill && stored_q == '0);

  always_ff @(posedge clk_i) begin
    mem[tail_q] <= data_i;  // always free; an entry only once the tail moves on
    if (refill) oldest_q <= stored_q != '0 ? mem[head_q] : data_i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      ready_o <= 1'b1;
      level_q <= '0;
      stored_q <= '0;
      oldest_valid_q <= 1'b0;
      head_q <= '0;
      tail_q <= '0;
    end else begin
      ready_o <= level_d != (AddrWidth+1)'(Depth);
      level_q <= level_d;
      stored_q <= stored_q + (AddrWidth+1)'(store) - (AddrWidth+1)'(load);
      if (refill) oldest_valid_q <= stored_q != '0 || push;
      if (store) tail_q <= tail_q + 1'b1;
      if (load) head_q <= head_q + 1'b1;
    end
  end
endmodule
