// The weight-stationary array with its decoders. A word of codes enters row by row, one cycle later in each row;
// weights and the pulses that load and swap them enter with the same skew, so that their order is the same at every
// element.
module ahcq_array
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned SumBits = OperandBits + WeightBits - 1 + $clog2(Dim)
) (
  input  logic                                  clk_i,
  input  logic                                  decode_we_i,
  input  logic [4:0]                            decode_waddr_i,
  input  logic [1:0][OperandBits-1:0]           decode_wdata_i,
  input  logic [Dim-1:0][CodeBits-1:0]          codes_i,
  input  logic [1:0]                            table_i,
  input  logic                                  swap_i,
  input  logic [Dim-1:0][WeightBits-1:0]        weights_i,    // sign and magnitude, one cycle after the codes of the same step
  input  logic                                  load_i,
  input  logic                                  transpose_i,
  output logic signed [Dim-1:0][SumBits-1:0]    sums_o        // column c: Dim + c + 3 cycles after the codes
);
  logic [Dim-1:0][CodeBits+2:0] row_in, row_skewed;
  logic [Dim-1:0][WeightBits-1:0] bus;
  logic [Dim-1:0][1:0] pulse_in, pulse_skewed;

  for (genvar r = 0; r < Dim; r++) begin : gen_input
    assign row_in[r] = {swap_i, table_i, codes_i[r]};
    assign pulse_in[r] = {load_i, transpose_i};
  end
  ahcq_skew #(
    .Width(CodeBits + 3),
    .Count(Dim)
  ) u_skew_codes (
    .clk_i,
    .data_i(row_in),
    .data_o(row_skewed)
  );
  ahcq_skew #(
    .Width(WeightBits),
    .Count(Dim)
  ) u_skew_weights (
    .clk_i,
    .data_i(weights_i),
    .data_o(bus)
  );
  ahcq_skew #(
    .Width(2),
    .Count(Dim)
  ) u_skew_pulses (
    .clk_i,
    .data_i(pulse_in),
    .data_o(pulse_skewed)
  );

  logic signed [OperandBits-1:0] act[Dim][Dim+1];
  logic swap[Dim][Dim+1];
  logic load[Dim][Dim+1];
  logic transpose[Dim][Dim+1];
  logic signed [SumBits-1:0] sum[Dim+1][Dim];

  for (genvar r = 0; r < Dim; r++) begin : gen_row
    logic swap_q;
    always_ff @(posedge clk_i) swap_q <= row_skewed[r][CodeBits+2];
    assign swap[r][0] = swap_q;
    assign {load[r][0], transpose[r][0]} = pulse_skewed[r];
    ahcq_decoder u_decoder (
      .clk_i,
      .we_i     (decode_we_i),
      .waddr_i  (decode_waddr_i),
      .wdata_i  (decode_wdata_i),
      .table_i  (row_skewed[r][CodeBits+:2]),
      .code_i   (row_skewed[r][CodeBits-1:0]),
      .operand_o(act[r][0])
    );
    for (genvar c = 0; c < Dim; c++) begin : gen_column
      ahcq_pe #(
        .SumBits(SumBits)
      ) u_pe (
        .clk_i,
        .act_i       (act[r][c]),
        .swap_i      (swap[r][c]),
        .load_i      (load[r][c]),
        .transpose_i (transpose[r][c]),
        .row_bus_i   (bus[r]),
        .column_bus_i(bus[c]),
        .sum_i       (sum[r][c]),
        .act_o       (act[r][c+1]),
        .swap_o      (swap[r][c+1]),
        .load_o      (load[r][c+1]),
        .transpose_o (transpose[r][c+1]),
        .sum_o       (sum[r+1][c])
      );
    end
  end
  for (genvar c = 0; c < Dim; c++) begin : gen_sum
    assign sum[0][c] = '0;
    assign sums_o[c] = sum[Dim][c];
  end
endmodule
