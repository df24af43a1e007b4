// `fp_rows` on carry chains of the ECP5, whose tables hold the AND gates of both rows that a chain adds.
module fp_rows #(
  parameter int unsigned Width = 24
) (
  input  logic [Width-1:0] number_i,
  input  logic [5:0]       bits_i,
  output logic [Width+1:0] sum_o[3]
);
  localparam int unsigned Cells = (Width + 2) / 2;  // bits 1 and up; bit 0 needs no carry

  logic [2*Cells:0] shifted, plain;
  assign shifted = (2 * Cells + 1)'({number_i, 1'b0});
  assign plain = (2 * Cells + 1)'(number_i);
  for (genvar i = 0; i < 3; i++) begin : gen_pair
    logic [Cells:0] carry;
    logic [2*Cells:0] sum;
    assign carry[0] = 1'b0;
    assign sum[0] = number_i[0] && bits_i[2*i];
    for (genvar j = 0; j < Cells; j++) begin : gen_cell
      // (A & B) + (C & D)
      CCU2C #(
        .INIT0    (16'h7888),
        .INIT1    (16'h7888),
        .INJECT1_0("NO"),
        .INJECT1_1("NO")
      ) u_cell (
        .CIN (carry[j]),
        .A0  (plain[2*j+1]),
        .B0  (bits_i[2*i]),
        .C0  (shifted[2*j+1]),
        .D0  (bits_i[2*i+1]),
        .A1  (plain[2*j+2]),
        .B1  (bits_i[2*i]),
        .C1  (shifted[2*j+2]),
        .D1  (bits_i[2*i+1]),
        .S0  (sum[2*j+1]),
        .S1  (sum[2*j+2]),
        .COUT(carry[j+1])
      );
    end
    assign sum_o[i] = sum[Width+1:0];
  end
endmodule
