// A floating-point GEMM core, what the accelerator is compared with: `Lanes` multiply-adds a cycle, fp32 or bf16 with fp32
// sums, one column of the result each. Operands and weights come as two streams in the order in which they are used
// (step by step: a weight for each lane, an operand for each row), results go row by row, all lanes of a row.
module fp_gemm
  import fp_pkg::*;
#(
  parameter bit          Bf16 = 1'b0,
  parameter int unsigned Lanes = 48,
  parameter int unsigned Dsps = 4,  // of an fp32 lane: 2, 3 or 4
  parameter int unsigned Depth = 512,  // rows of a tile
  parameter int unsigned StepBits = 14,
  parameter int unsigned RowBits = $clog2(Depth)
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                command_valid_i,
  output logic                command_ready_o,
  input  logic [RowBits:0]    rows_i,
  input  logic [StepBits-1:0] steps_i,
  input  logic                operand_valid_i,
  output logic                operand_ready_o,
  input  logic                weight_valid_i,
  output logic                weight_ready_o,
  input  logic [63:0]         chunk_i,  // of operands or of weights
  output logic                result_valid_o,
  output logic [31:0]         result_o
);
  localparam int unsigned WordBits = Bf16 ? 16 : 32;
  localparam int unsigned IndexBits = $clog2(Lanes);

  logic operand_valid, operand_ready, weight_valid, weight_ready;
  logic [WordBits-1:0] operand, weight;
  fp_stream #(
    .WordBits(WordBits)
  ) u_operands (
    .clk_i,
    .rst_ni,
    .valid_i(operand_valid_i),
    .ready_o(operand_ready_o),
    .chunk_i,
    .valid_o(operand_valid),
    .ready_i(operand_ready),
    .word_o (operand)
  );
  fp_stream #(
    .WordBits(WordBits)
  ) u_weights (
    .clk_i,
    .rst_ni,
    .valid_i(weight_valid_i),
    .ready_o(weight_ready_o),
    .chunk_i,
    .valid_o(weight_valid),
    .ready_i(weight_ready),
    .word_o (weight)
  );

  // between lanes; what is in front of a lane has its number
  logic start[Lanes+1], clear[Lanes+1], write_sum[Lanes+1], write_result[Lanes+1], weight_on[Lanes+1], fetch_on[Lanes+1];
  logic [WordBits-1:0] operands[Lanes+1], weights[Lanes+1];
  logic [RowBits-1:0] read_row[Lanes+1], write_row[Lanes+1], fetch_row[Lanes+1];
  logic [IndexBits-1:0] weight_index[Lanes+1], fetch_index[Lanes+1];
  logic [31:0] results[Lanes+1];

  fp_control #(
    .Lanes          (Lanes),
    .MultiplyLatency(Bf16 ? MultiplyBf16Stages : MultiplyStages),
    .WordBits       (WordBits),
    .Depth          (Depth),
    .StepBits       (StepBits),
    .IndexBits      (IndexBits)
  ) u_control (
    .clk_i,
    .rst_ni,
    .command_valid_i,
    .command_ready_o,
    .rows_i,
    .steps_i,
    .operand_valid_i(operand_valid),
    .operand_ready_o(operand_ready),
    .operand_i      (operand),
    .weight_valid_i (weight_valid),
    .weight_ready_o (weight_ready),
    .weight_i       (weight),
    .start_o        (start[0]),
    .operand_o      (operands[0]),
    .read_row_o     (read_row[0]),
    .clear_o        (clear[0]),
    .write_sum_o    (write_sum[0]),
    .write_result_o (write_result[0]),
    .write_row_o    (write_row[0]),
    .weight_valid_o (weight_on[0]),
    .weight_index_o (weight_index[0]),
    .weight_o       (weights[0]),
    .fetch_valid_o  (fetch_on[0]),
    .fetch_index_o  (fetch_index[0]),
    .fetch_row_o    (fetch_row[0])
  );
  assign results[0] = '0;

  for (genvar i = 0; i < Lanes; i++) begin : gen_lane
    fp_lane #(
      .Bf16     (Bf16),
      .Dsps     (Dsps),
      .Depth    (Depth),
      .IndexBits(IndexBits)
    ) u_lane (
      .clk_i,
      .start_i       (start[i]),
      .operand_i     (operands[i]),
      .read_row_i    (read_row[i]),
      .clear_i       (clear[i]),
      .write_sum_i   (write_sum[i]),
      .write_result_i(write_result[i]),
      .write_row_i   (write_row[i]),
      .weight_valid_i(weight_on[i]),
      .weight_index_i(weight_index[i]),
      .weight_i      (weights[i]),
      .fetch_valid_i (fetch_on[i]),
      .fetch_index_i (fetch_index[i]),
      .fetch_row_i   (fetch_row[i]),
      .result_i      (results[i]),
      .start_o       (start[i+1]),
      .operand_o     (operands[i+1]),
      .read_row_o    (read_row[i+1]),
      .clear_o       (clear[i+1]),
      .write_sum_o   (write_sum[i+1]),
      .write_result_o(write_result[i+1]),
      .write_row_o   (write_row[i+1]),
      .weight_valid_o(weight_on[i+1]),
      .weight_index_o(weight_index[i+1]),
      .weight_o      (weights[i+1]),
      .fetch_valid_o (fetch_on[i+1]),
      .fetch_index_o (fetch_index[i+1]),
      .fetch_row_o   (fetch_row[i+1]),
      .result_o      (results[i+1])
    );
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) result_valid_o <= 1'b0;
    else result_valid_o <= fetch_on[Lanes];
  end
  assign result_o = results[Lanes];

  initial begin
    if (Dsps < 2 || Dsps > 4) $error("Dsps is %0d; a lane takes 2, 3 or 4 DSP blocks", Dsps);
    if (Lanes < 2 || Lanes > 256) $error("Lanes is %0d, not 2 .. 256", Lanes);
  end
endmodule
