// Slices of a memory: what is read from a word, any of them, is what was written to it last, group by group, from power-up
// on. Checked for the first cycles.
module ram (
  input logic        clk_i,
  input logic [1:0]  we_i,
  input logic [2:0]  waddr_i,
  input logic [9:0]  wdata_i,
  input logic        re_i,
  input logic [2:0]  raddr_i
);
  logic [9:0] data;
  ahcq_ram #(
    .Width      (10),
    .Depth      (8),
    .Groups     (2),
    .BlockBits  (16),  // slices of 2, 2 and 1 bits
    .ParityDepth(4)
  ) u_ram (
    .clk_i,
    .we_i,
    .waddr_i,
    .wdata_i,
    .re_i,
    .raddr_i,
    .rdata_o(data)
  );

  logic [2:0] word_q;  // no initial value: any, and it stays
  logic [9:0] written_q = '0, expected_q = '0;
  logic read_q = 1'b0;
  always_ff @(posedge clk_i) begin
    word_q <= word_q;
    for (int unsigned g = 0; g < 2; g++) if (we_i[g] && waddr_i == word_q) written_q[5*g+:5] <= wdata_i[5*g+:5];
    if (re_i) begin
      expected_q <= written_q;
      read_q <= raddr_i == word_q;
    end
  end
  always_comb if (read_q) assert (data == expected_q);
endmodule
