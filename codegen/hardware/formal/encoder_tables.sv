// Writes to the encoder: one threshold and one code, any of them, are what was written last. Proved by induction.
module encoder_tables
  import ahcq_isa_pkg::*;
(
  input logic        clk_i,
  input logic        we_i,
  input logic [4:0]  waddr_i,
  input logic [63:0] wdata_i
);
  logic [CodeBits-1:0] code;
  ahcq_encoder u_encoder (
    .clk_i,
    .we_i,
    .waddr_i,
    .wdata_i,
    .value_i('0),
    .code_o (code)
  );

  logic [4:0] entry_q;  // no initial value: any, and it stays
  logic [31:0] threshold_q = '0;
  logic [CodeBits-1:0] code_q = '0;
  always_ff @(posedge clk_i) begin
    entry_q <= entry_q;
    if (we_i && waddr_i == {1'b0, entry_q[4:1]}) threshold_q <= wdata_i[32*entry_q[0]+:32];
    if (we_i && waddr_i == {1'b1, entry_q[4:1]}) code_q <= wdata_i[32*entry_q[0]+:CodeBits];
  end

  logic [31:0] threshold;
  always_comb begin
    threshold = u_encoder.level0;
    if (!entry_q[0]) threshold = u_encoder.level4[entry_q[4:1]];
    else if (!entry_q[1]) threshold = u_encoder.level3[entry_q[4:2]];
    else if (!entry_q[2]) threshold = u_encoder.level2[entry_q[4:3]];
    else if (!entry_q[3]) threshold = u_encoder.level1[entry_q[4]];
    assert (entry_q == '1 || threshold == threshold_q);  // the last threshold is unused
    assert (code_q == (entry_q[0] ? u_encoder.odd[entry_q[4:1]] : u_encoder.even[entry_q[4:1]]));
  end
endmodule
