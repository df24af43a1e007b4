// Product of a number and six bits as three partial sums, one for each pair of bits: their weights are 1, 4 and 16.
module fp_rows #(
  parameter int unsigned Width = 24
) (
  input  logic [Width-1:0] number_i,
  input  logic [5:0]       bits_i,
  output logic [Width+1:0] sum_o[3]
);
  for (genvar i = 0; i < 3; i++) begin : gen_pair
    assign sum_o[i] = (Width+2)'(number_i & {Width{bits_i[2*i]}})
        + ((Width+2)'(number_i & {Width{bits_i[2*i+1]}}) << 1);
  end
endmodule
