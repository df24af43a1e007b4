// A weight as the array takes it: code minus zero point, as sign and magnitude.
module ahcq_sign_magnitude
  import ahcq_isa_pkg::*;
(
  input  logic [CodeBits-1:0]   code_i,
  input  logic [CodeBits-1:0]   zero_i,
  output logic [WeightBits-1:0] weight_o
);
  logic negative;
  logic [CodeBits-1:0] difference;
  assign negative = code_i < zero_i;
  assign difference = code_i - zero_i;
  assign weight_o = {negative, negative ? -difference : difference};
endmodule
