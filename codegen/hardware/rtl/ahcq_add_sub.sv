// Sum or difference. Synthesis may read another module of this name, made of the cells of a device: see `synthesis/`.
module ahcq_add_sub #(
  parameter int unsigned Width = 16
) (
  input  logic signed [Width-1:0] a_i,
  input  logic signed [Width-1:0] b_i,
  input  logic                    subtract_i,
  output logic signed [Width-1:0] sum_o
);
  assign sum_o = subtract_i ? a_i - b_i : a_i + b_i;
endmodule
