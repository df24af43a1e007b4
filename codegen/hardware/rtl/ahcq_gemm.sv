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
  input  logic                                  start_valid_i,
  input  logic [255:0]                          start_instr_i,
  output logic                                  start_ready_o,
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
  gemm_t start_fields, instr_q, feed_instr;
  logic [11:0] step_q, block_q;
  logic [IndexWidth-1:0] word_q;
  logic [15:0] block_base_q, tile_base_q;
  logic shadow_full_q, swap, first_word, issue_word, last_word, last_step, last_block;
  logic fifo_ready, feed_valid, feed_done;
  logic start;

  // counts less one, so that nothing is subtracted where they are compared
  always_comb begin
    start_fields = start_instr_i;
    start_fields.rows = start_fields.rows - 1'b1;
    start_fields.steps = start_fields.steps - 1'b1;
    start_fields.blocks = start_fields.blocks - 1'b1;
  end
  assign start = start_valid_i && start_ready_o;
  assign start_ready_o = state_q == Idle && fifo_ready;
  assign first_word = state_q == Tile && word_q == '0;
  assign issue_word = state_q == Tile && (word_q != '0 || !shadow_full_q);
  assign last_word = word_q == IndexWidth'(Dim - 1);
  assign last_step = step_q == instr_q.steps;
  assign last_block = block_q == instr_q.blocks;

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      Idle: if (start) state_d = Zero;
      Zero: state_d = Tile;
      Tile: if (issue_word && last_word && last_step) state_d = last_block ? Idle : Zero;
      default: state_d = Idle;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      shadow_full_q <= 1'b0;
    end else begin
      state_q <= state_d;
      if (first_word && issue_word) shadow_full_q <= 1'b1;
      else if (swap) shadow_full_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start) begin
      instr_q <= start_fields;
      block_q <= '0;
      block_base_q <= start_fields.wgt;
    end
    if (state_q == Zero) begin
      step_q <= '0;
      word_q <= '0;
      tile_base_q <= block_base_q;
    end
    if (issue_word) begin
      word_q <= word_q + 1'b1;
      if (last_word) begin
        step_q <= step_q + 1'b1;
        tile_base_q <= tile_base_q + instr_q.wgt_stride;
        if (last_step) begin
          block_q <= block_q + 1'b1;
          block_base_q <= block_base_q + instr_q.wgt_block;
        end
      end
    end
  end
  logic [15:0] wgt_addr;
  assign wgt_addr = state_q == Zero ? instr_q.zero + 16'(block_q) : tile_base_q + 16'(word_q);
  assign wgt_addr_o = wgt_addr[$clog2(WgtDepth)-1:0];
  assign wgt_re_o = state_q == Zero || issue_word;

  // One cycle after the read: register.  Then subtract the zero point and register.
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
  logic [Dim-1:0][CodeBits-1:0] zeros_q, zeros;
  always_ff @(posedge clk_i) begin
    read_q <= '{
      word: issue_word,
      zero: state_q == Zero,
      first: first_word,
      transpose: instr_q.transpose,
      zero_vector: instr_q.zero_vector,
      zero_scalar: instr_q.zero[CodeBits-1:0],
      index: word_q
    };
    held_q <= read_q;
    held_data_q <= wgt_data_i;
    if (held_q.zero) zeros_q <= held_q.zero_vector ? held_data_q : {Dim{held_q.zero_scalar}};
  end
  logic [Dim-1:0][WeightBits-1:0] weights;
  for (genvar e = 0; e < Dim; e++) begin : gen_weight
    ahcq_sign_magnitude u_sign_magnitude (
      .code_i  (held_data_q[e]),
      .zero_i  (zeros[e]),
      .weight_o(weights[e])
    );
  end
  assign zeros = held_q.transpose ? {Dim{zeros_q[held_q.index]}} : zeros_q;
  always_ff @(posedge clk_i) begin
    weights_o <= weights;
    load_o <= held_q.first && held_q.word;
    transpose_o <= held_q.transpose;
  end

  // Feeder: rows of activations against the tile at work.
  logic [11:0] row_q, feed_step_q, feed_block_q;
  logic [15:0] act_offset_q, acc_offset_q, act_addr, acc_addr;
  logic feed, last_row, feed_last_step, feed_last_block, give_fifo_ready, give_fifo_valid;
  logic [2:0] complete_q;

  ahcq_fifo #(
    .Width(256),
    .Depth(2)
  ) u_feed_fifo (
    .clk_i,
    .rst_ni,
    .valid_i(start),
    .ready_o(fifo_ready),
    .data_i (start_fields),
    .valid_o(feed_valid),
    .ready_i(feed_done),
    .data_o (feed_instr)
  );

  assign feed = feed_valid && (row_q != '0 || (shadow_full_q && give_fifo_ready));
  assign swap = feed && row_q == '0;
  assign last_row = row_q == feed_instr.rows;
  assign feed_last_step = feed_step_q == feed_instr.steps;
  assign feed_last_block = feed_block_q == feed_instr.blocks;
  assign feed_done = feed && last_row && feed_last_step && feed_last_block;
  assign act_addr = feed_instr.act + act_offset_q + 16'(row_q);
  assign acc_addr = feed_instr.acc + acc_offset_q + 16'(row_q);
  assign act_addr_o = act_addr[$clog2(ActDepth)-1:0];
  assign act_re_o = feed;
  assign feed_o = feed;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      row_q <= '0;
      feed_step_q <= '0;
      feed_block_q <= '0;
      act_offset_q <= '0;
      acc_offset_q <= '0;
    end else if (feed) begin
      row_q <= last_row ? '0 : row_q + 1'b1;
      if (last_row) begin
        feed_step_q <= feed_last_step ? '0 : feed_step_q + 1'b1;
        act_offset_q <= feed_last_step ? '0 : act_offset_q + feed_instr.act_stride;
        if (feed_last_step) begin
          feed_block_q <= feed_last_block ? '0 : feed_block_q + 1'b1;
          acc_offset_q <= feed_last_block ? '0 : acc_offset_q + feed_instr.acc_block;
        end
      end
    end
  end

  // Codes come out of the memory one cycle later and are registered, together with their table and the swap.
  logic [1:0] table_q;
  logic swap_q;
  always_ff @(posedge clk_i) begin
    table_q <= feed_instr.decode;
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
  assign accumulate = feed_instr.accumulate || feed_step_q != '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_delay_q <= '0;
    else valid_delay_q <= {valid_delay_q[Latency-2:0], feed};
  end
  always_ff @(posedge clk_i) begin
    control_delay_q <= {
      control_delay_q[Latency-2:0], {accumulate, feed_done, acc_addr[$clog2(AccDepth)-1:0]}
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
    .valid_i(feed_done),
    .ready_o(give_fifo_ready),
    .data_i (feed_instr.push),
    .valid_o(give_fifo_valid),
    .ready_i(give_valid_o && give_ready_i),
    .data_o (give_mask_o)
  );
  assign give_valid_o = complete_q != '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) complete_q <= '0;
    else complete_q <= complete_q + 3'(acc_last_i) - 3'(give_valid_o && give_ready_i);
  end
  assign busy_o = state_q != Idle || feed_valid || give_fifo_valid;
endmodule
