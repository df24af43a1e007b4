// Product of a signed operand and the magnitude of a weight. Synthesis may read another module of this name, made of
// the cells of a device: see `synthesis/`.
module ahcq_multiply
  import ahcq_isa_pkg::*;
(
  input  logic signed [OperandBits-1:0]              operand_i,
  input  logic        [WeightBits-2:0]               magnitude_i,
  output logic signed [OperandBits+WeightBits-2:0]   product_o
);
  logic signed [OperandBits+WeightBits-1:0] product;
  assign product = operand_i * signed'({1'b0, magnitude_i});
  assign product_o = product[OperandBits+WeightBits-2:0];
endmodule
