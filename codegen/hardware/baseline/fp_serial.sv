// The floating-point core with five pins, in the same way as `ahcq_serial`: a chain of registers drives every input,
// another one samples every output.
module fp_serial #(
  parameter int unsigned Bf16 = 0,
  parameter int unsigned Lanes = 48,
  parameter int unsigned Dsps = 4
) (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic sample_i,
  input  logic bit_i,
  output logic bit_o
);
  localparam int unsigned RowBits = 10;
  localparam int unsigned StepBits = 14;
  localparam int unsigned Inputs = 3 + RowBits + StepBits + 64;
  localparam int unsigned Outputs = 4 + 32;

  logic command_valid, command_ready, operand_valid, operand_ready, weight_valid, weight_ready, result_valid;
  logic [RowBits-1:0] rows;
  logic [StepBits-1:0] steps;
  logic [63:0] chunk;
  logic [31:0] result;
  logic [Inputs-1:0] input_q;
  logic [Outputs-1:0] outputs, output_q;
  logic sample_q, rst_nq;

  assign {command_valid, operand_valid, weight_valid, rows, steps, chunk} = input_q;
  assign outputs = {command_ready, operand_ready, weight_ready, result_valid, result};
  always_ff @(posedge clk_i) begin
    rst_nq <= rst_ni;
    sample_q <= sample_i;
    input_q <= {input_q[Inputs-2:0], bit_i};
    output_q <= sample_q ? outputs : {output_q[Outputs-2:0], 1'b0};
  end
  assign bit_o = output_q[Outputs-1];

  fp_gemm #(
    .Bf16 (Bf16 != 0),
    .Lanes(Lanes),
    .Dsps (Dsps)
  ) u_gemm (
    .clk_i,
    .rst_ni         (rst_nq),
    .command_valid_i(command_valid),
    .command_ready_o(command_ready),
    .rows_i         (rows),
    .steps_i        (steps),
    .operand_valid_i(operand_valid),
    .operand_ready_o(operand_ready),
    .weight_valid_i (weight_valid),
    .weight_ready_o (weight_ready),
    .chunk_i        (chunk),
    .result_valid_o (result_valid),
    .result_o       (result)
  );
endmodule
