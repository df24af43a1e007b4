// A FIFO against a list: what it offers, whether it is full, and every entry it holds. Proved by induction.
module fifo #(
  parameter int unsigned Width = 4,
  parameter int unsigned Depth = 4
) (
  input logic             clk_i,
  input logic             valid_i,
  input logic             ready_i,
  input logic [Width-1:0] data_i
);
  localparam int unsigned AddrWidth = $clog2(Depth);

  logic rst_nq = 1'b0;
  logic can_push, can_pop;
  logic [Width-1:0] data;
  always_ff @(posedge clk_i) rst_nq <= 1'b1;
  ahcq_fifo #(
    .Width(Width),
    .Depth(Depth)
  ) u_fifo (
    .clk_i,
    .rst_ni (rst_nq),
    .valid_i,
    .ready_o(can_push),
    .data_i,
    .valid_o(can_pop),
    .ready_i,
    .data_o (data)
  );

  logic [Depth-1:0][Width-1:0] list_q;
  logic [AddrWidth:0] count_q = '0;
  logic push, pop;
  assign push = valid_i && count_q != (AddrWidth+1)'(Depth);
  assign pop = ready_i && count_q != '0;
  always_ff @(posedge clk_i) begin
    if (rst_nq) begin
      count_q <= count_q + (AddrWidth+1)'(push) - (AddrWidth+1)'(pop);
      for (int unsigned i = 0; i < Depth; i++) begin
        if (pop && i + 1 < Depth) list_q[i] <= list_q[i+1];
        if (push && i == 32'(count_q) - 32'(pop)) list_q[i] <= data_i;
      end
    end
  end

  always_comb begin
    if (rst_nq) begin
      assert (can_push == (count_q != (AddrWidth+1)'(Depth)));
      assert (can_pop == (count_q != '0));
      if (can_pop) assert (data == list_q[0]);
      // what induction must know
      assert (count_q <= (AddrWidth+1)'(Depth));
      assert (u_fifo.level_q == count_q);
      assert (u_fifo.stored_q == count_q - (AddrWidth+1)'(u_fifo.oldest_valid_q));
      assert (u_fifo.oldest_valid_q == (count_q != '0));
      assert (u_fifo.tail_q == AddrWidth'(u_fifo.head_q + AddrWidth'(u_fifo.stored_q)));
      for (int unsigned i = 1; i < Depth; i++) begin
        if (i < 32'(count_q)) assert (u_fifo.mem[AddrWidth'(u_fifo.head_q + AddrWidth'(i - 1))] == list_q[i]);
      end
    end else begin
      assert (count_q == '0 && u_fifo.level_q == '0 && u_fifo.stored_q == '0 && !u_fifo.oldest_valid_q && u_fifo.head_q == '0 && u_fifo.tail_q == '0);
    end
  end
endmodule
