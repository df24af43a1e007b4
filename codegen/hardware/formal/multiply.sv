// An operand times (code - zero point), added to any sum: sign and magnitude, multiplier and adder of one element.
module multiply
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned SumBits = 17
) (
  input logic [CodeBits-1:0]           code_i,
  input logic [CodeBits-1:0]           zero_i,
  input logic signed [OperandBits-1:0] operand_i,
  input logic signed [SumBits-1:0]     sum_i
);
  logic [WeightBits-1:0] weight;
  logic signed [OperandBits+WeightBits-2:0] product;
  logic signed [SumBits-1:0] sum;
  ahcq_sign_magnitude u_sign_magnitude (
    .code_i,
    .zero_i,
    .weight_o(weight)
  );
  ahcq_multiply u_multiply (
    .operand_i,
    .magnitude_i(weight[WeightBits-2:0]),
    .product_o  (product)
  );
  ahcq_add_sub #(
    .Width(SumBits)
  ) u_add_sub (
    .a_i       (sum_i),
    .b_i       (SumBits'(product)),
    .subtract_i(weight[WeightBits-1]),
    .sum_o     (sum)
  );

  // Together: sum = sum_i + operand_i * (code_i - zero_i), modulo 2**SumBits
  logic signed [WeightBits:0] difference, magnitude;
  assign difference = signed'({2'b0, code_i}) - signed'({2'b0, zero_i});
  assign magnitude = signed'({2'b0, weight[WeightBits-2:0]});
  always_comb begin
    assert (difference == (weight[WeightBits-1] ? -magnitude : magnitude));
    assert (product == operand_i * magnitude);
    assert (sum == (weight[WeightBits-1] ? sum_i - SumBits'(product) : sum_i + SumBits'(product)));
  end
endmodule
