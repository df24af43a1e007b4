// Order of work of the lanes. A command is a tile: `rows` rows of the result, the sums of `steps` products. In each step all
// lanes take a weight that stays, and the rows pass. While they do, the weights of the next step arrive. The results of
// a tile are fetched while the next one is computed.
module fp_control
  import fp_pkg::*;
#(
  parameter int unsigned Lanes = 48,
  parameter int unsigned MultiplyLatency = 5,
  parameter int unsigned WordBits = 32,
  parameter int unsigned Depth = 512,
  parameter int unsigned StepBits = 14,
  parameter int unsigned IndexBits = 6,
  parameter int unsigned RowBits = $clog2(Depth)
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 command_valid_i,
  output logic                 command_ready_o,
  input  logic [RowBits:0]     rows_i,
  input  logic [StepBits-1:0]  steps_i,
  input  logic                 operand_valid_i,
  output logic                 operand_ready_o,
  input  logic [WordBits-1:0]  operand_i,
  input  logic                 weight_valid_i,
  output logic                 weight_ready_o,
  input  logic [WordBits-1:0]  weight_i,
  // to the first lane
  output logic                 start_o,
  output logic [WordBits-1:0]  operand_o,
  output logic [RowBits-1:0]   read_row_o,
  output logic                 clear_o,
  output logic                 write_sum_o,
  output logic                 write_result_o,
  output logic [RowBits-1:0]   write_row_o,
  output logic                 weight_valid_o,
  output logic [IndexBits-1:0] weight_index_o,
  output logic [WordBits-1:0]  weight_o,
  output logic                 fetch_valid_o,
  output logic [IndexBits-1:0] fetch_index_o,
  output logic [RowBits-1:0]   fetch_row_o
);
  localparam int unsigned Latency = MultiplyLatency + AddStages;
  localparam int unsigned Period = AddStages + 3;  // a sum is written before the next step reads it
  localparam int unsigned WaitBits = $clog2(Latency + 3);

  // rows of steps
  logic active_q, issue, row_first, row_last, step_first, step_last, begin_step, end_tile, load;
  logic [RowBits:0] rows_q, row, fetch_row;
  logic [WaitBits-1:0] period_q, settle_q;
  logic loaded_q, period_over_q, results_wait_q, settling_q, fetching_q;

  ahcq_count #(
    .Width(RowBits + 1)
  ) u_row (
    .clk_i,
    .load_i (load),
    .count_i(rows_i),
    .step_i (issue),
    .value_o(row),
    .first_o(row_first),
    .last_o (row_last)
  );
  ahcq_count #(
    .Width(StepBits)
  ) u_step (
    .clk_i,
    .load_i (load),
    .count_i(steps_i),
    .step_i (issue && row_last),
    .value_o(),
    .first_o(step_first),
    .last_o (step_last)
  );
  assign operand_ready_o = active_q && (!row_first || (loaded_q && period_over_q && !(step_last && results_wait_q)));
  assign issue = operand_ready_o && operand_valid_i;
  assign begin_step = issue && row_first;
  assign end_tile = issue && row_last && step_last;
  assign command_ready_o = !active_q || end_tile;
  assign load = command_valid_i && command_ready_o;

  // weights of the next step
  logic weight_sent, weight_last;
  logic [IndexBits-1:0] weight_index;
  assign weight_ready_o = !loaded_q;
  assign weight_sent = weight_valid_i && weight_ready_o;
  assign weight_last = weight_index == IndexBits'(Lanes - 1);

  // results of the last tile
  logic fetch_lane_last, fetch_row_last;
  logic [IndexBits-1:0] fetch_lane;
  assign fetch_lane_last = fetch_lane == IndexBits'(Lanes - 1);
  ahcq_count #(
    .Width(RowBits + 1)
  ) u_fetch_row (
    .clk_i,
    .load_i (end_tile),
    .count_i(rows_q),
    .step_i (fetching_q && fetch_lane_last),
    .value_o(fetch_row),
    .first_o(),
    .last_o (fetch_row_last)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      loaded_q <= 1'b0;
      weight_index <= '0;
      period_over_q <= 1'b1;
      results_wait_q <= 1'b0;
      settling_q <= 1'b0;
      fetching_q <= 1'b0;
      fetch_lane <= '0;
    end else begin
      if (load) active_q <= 1'b1;
      else if (end_tile) active_q <= 1'b0;
      if (begin_step) loaded_q <= 1'b0;
      else if (weight_sent && weight_last) loaded_q <= 1'b1;
      if (weight_sent) weight_index <= weight_last ? '0 : weight_index + 1'b1;
      if (begin_step) period_over_q <= 1'b0;
      else if (period_q == '0) period_over_q <= 1'b1;
      if (begin_step && step_last) results_wait_q <= 1'b1;
      else if (fetching_q && fetch_lane_last && fetch_row_last) results_wait_q <= 1'b0;
      if (end_tile) settling_q <= 1'b1;
      else if (settle_q == '0) settling_q <= 1'b0;
      if (settling_q && settle_q == '0) fetching_q <= 1'b1;
      else if (fetch_lane_last && fetch_row_last) fetching_q <= 1'b0;
      if (fetching_q) fetch_lane <= fetch_lane_last ? '0 : fetch_lane + 1'b1;
    end
  end
  always_ff @(posedge clk_i) begin
    if (load) rows_q <= rows_i;
    period_q <= begin_step ? WaitBits'(Period - 2) : period_q - 1'b1;
    settle_q <= end_tile ? WaitBits'(Latency + 1) : settle_q - 1'b1;
  end

  // what a row needs, at the stage that needs it
  typedef struct packed {
    logic valid;
    logic first;
    logic last;
    logic [RowBits-1:0] row;
  } row_t;
  row_t now, delayed_q[Latency+1];
  assign now = '{valid: issue, first: step_first, last: step_last, row: row[RowBits-1:0]};
  always_ff @(posedge clk_i) begin
    delayed_q[0] <= now;
    delayed_q[1:Latency] <= delayed_q[0:Latency-1];
    start_o <= begin_step;
    operand_o <= operand_i;
    weight_valid_o <= weight_sent;
    weight_index_o <= weight_index;
    weight_o <= weight_i;
    fetch_valid_o <= fetching_q;
    fetch_index_o <= fetch_lane;
    fetch_row_o <= fetch_row[RowBits-1:0];
  end
  assign read_row_o = delayed_q[MultiplyLatency-2].row;
  assign clear_o = delayed_q[MultiplyLatency-1].first;
  assign write_sum_o = delayed_q[Latency].valid && !delayed_q[Latency].last;
  assign write_result_o = delayed_q[Latency].valid && delayed_q[Latency].last;
  assign write_row_o = delayed_q[Latency].row;
endmodule
