// Processing element: two weights (one at work, one arriving) and a multiply-add. Operands go right, sums go down.
// A weight is a sign and a magnitude: the magnitude multiplies, the sign turns the addition into a subtraction.
module ahcq_pe
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned SumBits = 16
) (
  input  logic                          clk_i,
  input  logic signed [OperandBits-1:0] act_i,
  input  logic                          swap_i,       // the arriving weight starts to work, with this operand
  input  logic                          load_i,       // a weight arrives
  input  logic                          transpose_i,
  input  logic [WeightBits-1:0]         row_bus_i,
  input  logic [WeightBits-1:0]         column_bus_i,
  input  logic signed [SumBits-1:0]     sum_i,
  output logic signed [OperandBits-1:0] act_o,
  output logic                          swap_o,
  output logic                          load_o,
  output logic                          transpose_o,
  output logic signed [SumBits-1:0]     sum_o
);
  localparam int unsigned ProductBits = OperandBits + WeightBits - 1;

  logic [WeightBits-1:0] arriving_q, weight_q;
  logic signed [OperandBits-1:0] act_q;
  logic signed [ProductBits-1:0] product, product_q;
  logic signed [SumBits-1:0] sum, sum_q;
  logic swap_q, load_q, transpose_q, subtract_q;

  ahcq_multiply u_multiply (
    .operand_i  (act_q),
    .magnitude_i(weight_q[WeightBits-2:0]),
    .product_o  (product)
  );
  ahcq_add_sub #(
    .Width(SumBits)
  ) u_add_sub (
    .a_i       (sum_i),
    .b_i       (SumBits'(product_q)),
    .subtract_i(subtract_q),
    .sum_o     (sum)
  );

  always_ff @(posedge clk_i) begin
    act_q <= act_i;
    swap_q <= swap_i;
    load_q <= load_i;
    transpose_q <= transpose_i;
    if (load_i) arriving_q <= transpose_i ? row_bus_i : column_bus_i;
    if (swap_i) weight_q <= arriving_q;
    product_q <= product;
    subtract_q <= weight_q[WeightBits-1];
    sum_q <= sum;
  end

  assign act_o = act_q;
  assign swap_o = swap_q;
  assign load_o = load_q;
  assign transpose_o = transpose_q;
  assign sum_o = sum_q;
endmodule
