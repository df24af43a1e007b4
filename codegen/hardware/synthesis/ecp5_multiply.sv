// `ahcq_multiply` on carry chains of the ECP5: each chain adds two rows of partial products, whose AND gates share its
// look-up tables. Proved equal in `formal/`.
module ahcq_multiply
  import ahcq_isa_pkg::*;
(
  input  logic signed [OperandBits-1:0]            operand_i,
  input  logic        [WeightBits-2:0]             magnitude_i,
  output logic signed [OperandBits+WeightBits-2:0] product_o
);
  localparam int unsigned RowBits = OperandBits + 2;

  logic signed [RowBits-1:0] low, high;
  ecp5_two_rows u_low (
    .operand_i,
    .bits_i(magnitude_i[1:0]),
    .sum_o (low)
  );
  ecp5_two_rows u_high (
    .operand_i,
    .bits_i(magnitude_i[3:2]),
    .sum_o (high)
  );
  assign product_o[2+:RowBits] = RowBits'(low >>> 2) + high;
  assign product_o[1:0] = low[1:0];
endmodule

// operand * bits, of two bits
module ecp5_two_rows
  import ahcq_isa_pkg::*;
(
  input  logic signed [OperandBits-1:0] operand_i,
  input  logic [1:0]                    bits_i,
  output logic signed [OperandBits+1:0] sum_o
);
  localparam int unsigned Chain = OperandBits + 1;  // bits 1 and up; bit 0 needs no carry

  logic [OperandBits+1:0] extended;
  logic [Chain/2:0] carry;
  assign extended = (OperandBits + 2)'(operand_i);
  assign sum_o[0] = operand_i[0] && bits_i[0];
  assign carry[0] = 1'b0;
  for (genvar i = 0; i < Chain / 2; i++) begin : gen_pair
    // (A & B) + (C & D)
    CCU2C #(
      .INIT0    (16'h7888),
      .INIT1    (16'h7888),
      .INJECT1_0("NO"),
      .INJECT1_1("NO")
    ) u_cell (
      .CIN (carry[i]),
      .A0  (extended[2*i+1]),
      .B0  (bits_i[0]),
      .C0  (extended[2*i]),
      .D0  (bits_i[1]),
      .A1  (extended[2*i+2]),
      .B1  (bits_i[0]),
      .C1  (extended[2*i+1]),
      .D1  (bits_i[1]),
      .S0  (sum_o[2*i+1]),
      .S1  (sum_o[2*i+2]),
      .COUT(carry[i+1])
    );
  end
endmodule
