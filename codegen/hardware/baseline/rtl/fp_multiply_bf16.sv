// Product of two bf16 numbers as fp32, which is exact; subnormals are flushed to zero. 2 stages.
module fp_multiply_bf16
  import fp_pkg::*;
(
  input  logic        clk_i,
  input  logic [15:0] a_i,
  input  logic [15:0] b_i,
  output logic [31:0] product_o
);
  typedef logic signed [ExponentBits-1:0] exponent_t;

  logic [7:0] a, b;
  logic [15:0] product_q;
  exponent_t exponent_q;
  kind_t kind_q;

  assign a = {1'b1, a_i[6:0]};
  assign b = {1'b1, b_i[6:0]};
  always_ff @(posedge clk_i) begin
    kind_q <= product_kind(a_i[15:7], b_i[15:7], a_i[6:0] != '0, b_i[6:0] != '0);
    exponent_q <= exponent_t'({1'b0, a_i[14:7]}) + exponent_t'({1'b0, b_i[14:7]}) - exponent_t'(127);
    product_q <= a * b;
    product_o <= pack(
      kind_q, exponent_q + exponent_t'({1'b0, product_q[15]}),
      product_q[15] ? {product_q[14:0], 8'b0} : {product_q[13:0], 9'b0}
    );
  end
endmodule
