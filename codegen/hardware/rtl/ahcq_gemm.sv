// The GEMM unit: one sequencer reads weights into the array ahead of time, another feeds rows of activations.
module ahcq_gemm
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned ActDepth = 16,
  parameter int unsigned WgtDepth = 16,
  parameter int unsigned AccDepth = 16
) (
  input  logic                                  clk_i,
  input  logic                                  rst_ni,
  input  logic                                  start_i,
  input  logic [255:0]                          start_instr_i,
  output logic                                  ready_o,
  output logic                                  give_valid_o,
  output logic [3:0]                            give_mask_o,
  input  logic                                  give_ready_i,
  output logic                                  busy_o,
  output logic                                  feed_o,
  output logic                                  act_re_o,
  output logic [$clog2(ActDepth)-1:0]           act_addr_o,
  input  logic [Dim-1:0][CodeBits-1:0]          act_data_i,
  output logic                                  wgt_re_o,
  output logic [$clog2(WgtDepth)-1:0]           wgt_addr_o,
  input  logic [Dim-1:0][CodeBits-1:0]          wgt_data_i,
  output logic [Dim-1:0][CodeBits-1:0]          codes_o,
  output logic [1:0]                            table_o,
  output logic                                  swap_o,
  output logic [Dim-1:0][WeightBits-1:0]        weights_o,  // sign and magnitude
  output logic                                  load_o,
  output logic                                  transpose_o,
  output logic                                  acc_coming_o,  // valid in the next cycle
  output logic                                  acc_coming_half_o,
  output logic                                  acc_valid_o,
  output logic [$clog2(AccDepth)-1:0]           acc_addr_o,
  output logic                                  acc_accumulate_o,
  output logic                                  acc_last_o,
  input  logic                                  acc_last_i
);
  localparam int unsigned IndexWidth = $clog2(Dim);

  // Loader: zero points of a column block, then its tiles, each Dim words without a pause.
  typedef enum logic [1:0] {Idle, Zero, Tile} state_e;
  state_e state_d, state_q;
  gemm_t start_fields, instr_q;
  logic [IndexWidth:0] word;
  logic [15:0] block_base_q, tile_base_q, zero_at_q, wgt_at_q;
  logic shadow_full_q, filling_q, swap, first_word, issue_word, last_word, last_step, last_block;
  logic can_feed;

  assign start_fields = start_instr_i;
  assign ready_o = state_q == Idle && can_feed;
  assign issue_word = state_q == Tile && (!first_word || !shadow_full_q);
  ahcq_count #(
    .Width(IndexWidth + 1)
  ) u_word (
    .clk_i,
    .load_i (state_q == Zero),
    .count_i((IndexWidth + 1)'(Dim)),
    .step_i (issue_word),
    .value_o(word),
    .first_o(first_word),
    .last_o (last_word)
  );
  ahcq_count u_step (
    .clk_i,
    .load_i (start_i),
    .count_i(start_fields.steps),
    .step_i (issue_word && last_word),
    .value_o(),
    .first_o(),
    .last_o (last_step)
  );
  ahcq_count u_block (
    .clk_i,
    .load_i (start_i),
    .count_i(start_fields.blocks),
    .step_i (issue_word && last_word && last_step),
    .value_o(),
    .first_o(),
    .last_o (last_block)
  );

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      Idle: if (start_i) state_d = Zero;
      Zero: state_d = Tile;
      Tile: if (issue_word && last_word && last_step) state_d = last_block ? Idle : Zero;
      default: state_d = Idle;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      shadow_full_q <= 1'b0;
      filling_q <= 1'b0;
    end else begin
      state_q <= state_d;
      filling_q <= first_word && issue_word;
      if (filling_q) shadow_full_q <= 1'b1;
      else if (swap) shadow_full_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      instr_q <= start_fields;
      block_base_q <= start_fields.wgt;
      zero_at_q <= start_fields.zero;
    end
    if (state_q == Zero) begin
      zero_at_q <= zero_at_q + 1'b1;
      tile_base_q <= block_base_q;
      wgt_at_q <= block_base_q;
    end
    if (issue_word) begin
      wgt_at_q <= last_word ? tile_base_q + instr_q.wgt_stride : wgt_at_q + 1'b1;
      if (last_word) begin
        tile_base_q <= tile_base_q + instr_q.wgt_stride;
        if (last_step) block_base_q <= block_base_q + instr_q.wgt_block;
      end
    end
  end
  logic [15:0] wgt_addr;
  assign wgt_addr = state_q == Zero ? zero_at_q : wgt_at_q;
  assign wgt_addr_o = wgt_addr[$clog2(WgtDepth)-1:0];
  assign wgt_re_o = state_q == Zero || issue_word;

  // One cycle after the read: register.  Then pick the zero point; then subtract it.
  typedef struct packed {
    logic                  word;
    logic                  zero;
    logic                  first;
    logic                  transpose;
    logic                  zero_vector;
    logic [CodeBits-1:0]   zero_scalar;
    logic [IndexWidth-1:0] index;
  } read_t;
  read_t read_q, held_q;
  logic [Dim-1:0][CodeBits-1:0] held_data_q;
  logic [Dim-1:0][CodeBits-1:0] zeros_q, zero_of_q, code_q;
  logic coming_q, coming_transposed_q;
  always_ff @(posedge clk_i) begin
    read_q <= '{
      word: issue_word,
      zero: state_q == Zero,
      first: first_word,
      transpose: instr_q.transpose,
      zero_vector: instr_q.zero_vector,
      zero_scalar: instr_q.zero[CodeBits-1:0],
      index: word[IndexWidth-1:0]
    };
    held_q <= read_q;
    held_data_q <= wgt_data_i;
    if (held_q.zero) zeros_q <= held_q.zero_vector ? held_data_q : {Dim{held_q.zero_scalar}};
  end
  logic [Dim-1:0][WeightBits-1:0] weights;
  for (genvar e = 0; e < Dim; e++) begin : gen_weight
    ahcq_sign_magnitude u_sign_magnitude (
      .code_i  (code_q[e]),
      .zero_i  (zero_of_q[e]),
      .weight_o(weights[e])
    );
  end
  always_ff @(posedge clk_i) begin
    code_q <= held_data_q;
    zero_of_q <= held_q.transpose ? {Dim{zeros_q[held_q.index]}} : zeros_q;
    coming_q <= held_q.first && held_q.word;
    coming_transposed_q <= held_q.transpose;
    weights_o <= weights;
    load_o <= coming_q;
    transpose_o <= coming_transposed_q;
  end

  // Feeder: rows of activations against the tile at work.
  // The instruction at work and the next one.
  gemm_t feed_q, next_q;
  logic feed_valid_q, next_valid_q, done_q, advance;
  logic [15:0] act_base_q, act_at_q, acc_base_q, acc_at_q;
  logic feed, first_row, last_row, first_step, feed_last_step, feed_last_block, feed_done;
  logic give_fifo_ready, give_fifo_valid;
  logic [2:0] complete_q;
  assign can_feed = !next_valid_q;
  assign advance = !feed_valid_q && next_valid_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      feed_valid_q <= 1'b0;
      next_valid_q <= 1'b0;
      done_q <= 1'b0;
    end else begin
      done_q <= feed_done;
      if (advance) feed_valid_q <= 1'b1;
      else if (feed_done) feed_valid_q <= 1'b0;
      if (start_i) next_valid_q <= 1'b1;
      else if (advance) next_valid_q <= 1'b0;
    end
  end
  always_ff @(posedge clk_i) begin
    if (advance) feed_q <= next_q;
    if (start_i) next_q <= start_fields;
  end
  ahcq_count u_feed_row (
    .clk_i,
    .load_i (advance),
    .count_i(next_q.rows),
    .step_i (feed),
    .value_o(),
    .first_o(first_row),
    .last_o (last_row)
  );
  ahcq_count u_feed_step (
    .clk_i,
    .load_i (advance),
    .count_i(next_q.steps),
    .step_i (feed && last_row),
    .value_o(),
    .first_o(first_step),
    .last_o (feed_last_step)
  );
  ahcq_count u_feed_block (
    .clk_i,
    .load_i (advance),
    .count_i(next_q.blocks),
    .step_i (feed && last_row && feed_last_step),
    .value_o(),
    .first_o(),
    .last_o (feed_last_block)
  );

  assign feed = feed_valid_q && (!first_row || (shadow_full_q && give_fifo_ready));
  assign swap = feed && first_row;
  assign feed_done = feed && last_row && feed_last_step && feed_last_block;
  assign act_addr_o = act_at_q[$clog2(ActDepth)-1:0];
  assign act_re_o = feed;
  assign feed_o = feed;

  always_ff @(posedge clk_i) begin
    if (advance) begin
      act_base_q <= next_q.act;
      act_at_q <= next_q.act;
      acc_base_q <= next_q.acc;
      acc_at_q <= next_q.acc;
    end else if (feed && !last_row) begin
      act_at_q <= act_at_q + 1'b1;
      acc_at_q <= acc_at_q + 1'b1;
    end else if (feed && feed_last_step) begin
      act_base_q <= feed_q.act;
      act_at_q <= feed_q.act;
      acc_base_q <= acc_base_q + feed_q.acc_block;
      acc_at_q <= acc_base_q + feed_q.acc_block;
    end else if (feed) begin
      act_base_q <= act_base_q + feed_q.act_stride;
      act_at_q <= act_base_q + feed_q.act_stride;
      acc_at_q <= acc_base_q;
    end
  end

  // Codes come out of the memory one cycle later and are registered, together with their table and the swap.
  logic [1:0] table_q;
  logic swap_q;
  always_ff @(posedge clk_i) begin
    table_q <= feed_q.decode;
    swap_q <= swap;
    table_o <= table_q;
    swap_o <= swap_q;
    codes_o <= act_data_i;
  end

  // The accumulators see a row Dim + 3 cycles after it was read; its sum comes two cycles later.
  localparam int unsigned Latency = Dim + 3;
  localparam int unsigned ControlWidth = $clog2(AccDepth) + 2;
  logic [Latency-1:0] valid_delay_q;
  logic [Latency-1:0][ControlWidth-1:0] control_delay_q;
  logic accumulate;
  assign accumulate = feed_q.accumulate || !first_step;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_delay_q <= '0;
    else valid_delay_q <= {valid_delay_q[Latency-2:0], feed};
  end
  always_ff @(posedge clk_i) begin
    control_delay_q <= {
      control_delay_q[Latency-2:0], {accumulate, feed_done, acc_at_q[$clog2(AccDepth)-1:0]}
    };
  end
  assign acc_coming_o = valid_delay_q[Latency-2];
  assign acc_coming_half_o = control_delay_q[Latency-2][$clog2(AccDepth)-1];
  assign acc_valid_o = valid_delay_q[Latency-1];
  assign {acc_accumulate_o, acc_last_o, acc_addr_o} = control_delay_q[Latency-1];

  // Tokens are given when the last row has been written.
  ahcq_fifo #(
    .Width(4),
    .Depth(4)
  ) u_give_fifo (
    .clk_i,
    .rst_ni,
    .valid_i(done_q),  // `feed_q` is still that instruction
    .ready_o(give_fifo_ready),
    .data_i (feed_q.push),
    .valid_o(give_fifo_valid),
    .ready_i(give_valid_o && give_ready_i),
    .data_o (give_mask_o)
  );
  assign give_valid_o = complete_q != '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) complete_q <= '0;
    else complete_q <= complete_q + 3'(acc_last_i) - 3'(give_valid_o && give_ready_i);
  end
  assign busy_o = state_q != Idle || next_valid_q || feed_valid_q || done_q || give_fifo_valid;
endmodule
