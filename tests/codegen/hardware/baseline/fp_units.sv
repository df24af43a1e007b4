// Every arithmetic unit of the floating-point core, side by side.
module fp_units (
  input  logic        clk_i,
  input  logic [31:0] a_i,
  input  logic [31:0] b_i,
  output logic [31:0] result_o[5]
);
  for (genvar i = 0; i < 3; i++) begin : gen_multiply
    fp_multiply #(
      .Dsps(i + 2)
    ) u_multiply (
      .clk_i,
      .a_i,
      .b_i,
      .product_o(result_o[i])
    );
  end
  fp_multiply_bf16 u_bf16 (
    .clk_i,
    .a_i      (a_i[31:16]),
    .b_i      (b_i[31:16]),
    .product_o(result_o[3])
  );
  fp_add u_add (
    .clk_i,
    .a_i,
    .b_i,
    .sum_o(result_o[4])
  );
endmodule
