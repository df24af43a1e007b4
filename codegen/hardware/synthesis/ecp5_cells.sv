// Cells of the ECP5 that the modules here name: interfaces for the frontend, their behaviour is in Yosys' library.
(* blackbox *)
module CCU2C #(
  parameter logic [15:0] INIT0 = 16'h0,
  parameter logic [15:0] INIT1 = 16'h0,
  parameter INJECT1_0 = "YES",
  parameter INJECT1_1 = "YES"
) (
  input  logic CIN, A0, B0, C0, D0, A1, B1, C1, D1,
  output logic S0, S1, COUT
);
endmodule
