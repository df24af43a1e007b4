// The STORE unit: reads words, sends them beat by beat, and waits for every answer before it gives its tokens.
module ahcq_store
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned BusChunks = 1,
  parameter int unsigned OutDepth = 16,
  parameter int unsigned VecDepth = 16
) (
  input  logic                                          clk_i,
  input  logic                                          rst_ni,
  input  logic                                          stop_i,
  input  logic                                          start_i,
  input  logic [255:0]                                  start_instr_i,
  output logic                                          ready_o,
  output logic                                          give_valid_o,
  output logic [3:0]                                    give_mask_o,
  input  logic                                          give_ready_i,
  output logic                                          busy_o,
  output logic [2:0]                                    chunks_o,
  output logic                                          quiet_o,
  output logic                                          aw_valid_o,
  input  logic                                          aw_ready_i,
  output logic [31:0]                                   aw_addr_o,
  output logic [7:0]                                    aw_len_o,
  output logic                                          w_valid_o,
  input  logic                                          w_ready_i,
  output logic [64*BusChunks-1:0]                       w_data_o,
  output logic                                          w_last_o,
  input  logic                                          b_valid_i,
  output logic                                          out_re_o,
  output logic [$clog2(OutDepth)-1:0]                   out_addr_o,
  input  logic [4*Dim-1:0]                              out_data_i,
  output logic                                          vec_re_o,
  input  logic                                          vec_ready_i,
  output logic [$clog2(VecDepth*(Dim/Lanes))-1:0]       vec_addr_o,
  input  logic [32*Lanes-1:0]                           vec_data_i
);
  // A read gives one word of `out` or Lanes numbers of `vec`: a part of a beat, a beat, or several.
  localparam int unsigned CodeWidth = 4 * Dim;
  localparam int unsigned WordsInChunk = CodeWidth < 64 ? 64 / CodeWidth : 1;
  localparam int unsigned CodeBeats = CodeWidth > 64 ? CodeWidth / 64 / BusChunks : 1;
  localparam int unsigned LaneBeats = Lanes / 2 / BusChunks;
  localparam int unsigned BusWidth = 64 * BusChunks;
  localparam int unsigned Subs = Dim / Lanes;
  localparam int unsigned SubBits = $clog2(Subs);
  localparam int unsigned ReadBits = 32 * Lanes > CodeWidth ? 32 * Lanes : CodeWidth;
  localparam int unsigned HoldBits = ReadBits > BusWidth ? ReadBits : BusWidth;

  store_t fields, instr_q;
  logic active_q, done_q;
  assign fields = start_instr_i;
  assign ready_o = !active_q && !done_q;

  // Reader: a read is captured in one register while what came before leaves another, beat by beat.
  logic reading_q, arriving_q, next_valid_q, row_ends_q, is_vec_q;
  logic [19:0] at_q, row_at_q, next_row_q;  // in reads
  logic [13:0] row_reads;
  logic [4:0] parts_q, parts;  // beats that are held
  logic [1:0] sub_q;
  logic [HoldBits-1:0] next_q, hold_q;
  logic read, move, send, last_sub, last_read, last_row, fifo_in_ready, fifo_in_valid;
  logic [19:0] pitch;

  assign parts = is_vec_q ? 5'(LaneBeats) : 5'(CodeBeats);
  assign pitch = is_vec_q ? 20'(instr_q.sp_stride) << SubBits : 20'(instr_q.sp_stride);
  assign row_reads = fields.memory == 3'(MemVec) ? 14'(fields.length >> $clog2(Lanes / 2)) :
      CodeWidth > 64 ? 14'(fields.length >> $clog2(CodeWidth / 64)) : 14'(fields.length) << $clog2(WordsInChunk);
  assign out_re_o = reading_q && !arriving_q && !next_valid_q && !is_vec_q;
  assign vec_re_o = reading_q && !arriving_q && !next_valid_q && is_vec_q;
  assign read = out_re_o || (vec_re_o && vec_ready_i);
  assign out_addr_o = at_q[$clog2(OutDepth)-1:0];
  assign vec_addr_o = at_q[$clog2(VecDepth*Subs)-1:0];
  assign last_sub = is_vec_q || sub_q == 2'(WordsInChunk - 1);
  assign fifo_in_valid = parts_q != '0;
  assign send = fifo_in_valid && fifo_in_ready;
  assign move = next_valid_q && (!fifo_in_valid || (send && parts_q == 5'd1));
  ahcq_count #(
    .Width(14)
  ) u_read (
    .clk_i,
    .load_i (start_i),
    .count_i(row_reads),
    .step_i (read),
    .value_o(),
    .first_o(),
    .last_o (last_read)
  );
  ahcq_count u_row (
    .clk_i,
    .load_i (start_i),
    .count_i(fields.rows),
    .step_i (read && last_read),
    .value_o(),
    .first_o(),
    .last_o (last_row)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      reading_q <= 1'b0;
      arriving_q <= 1'b0;
      next_valid_q <= 1'b0;
      parts_q <= '0;
    end else begin
      if (start_i) reading_q <= 1'b1;
      else if (read && last_read && last_row) reading_q <= 1'b0;
      arriving_q <= read;
      next_valid_q <= (arriving_q && last_sub) || (next_valid_q && !move);
      if (move) parts_q <= parts;
      else if (send) parts_q <= parts_q - 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    next_row_q <= row_at_q + pitch;
    row_ends_q <= last_read;
    if (start_i) begin
      instr_q <= start_instr_i;
      is_vec_q <= fields.memory == 3'(MemVec);
      sub_q <= '0;
      row_at_q <= fields.memory == 3'(MemVec) ? 20'(fields.sp) << SubBits : 20'(fields.sp);
      at_q <= fields.memory == 3'(MemVec) ? 20'(fields.sp) << SubBits : 20'(fields.sp);
    end else if (arriving_q && row_ends_q) begin
      row_at_q <= next_row_q;
      at_q <= next_row_q;
    end else if (read) begin
      at_q <= at_q + 1'b1;
    end
    if (arriving_q) begin
      sub_q <= last_sub ? '0 : sub_q + 1'b1;
      if (is_vec_q) next_q <= HoldBits'(vec_data_i);
      else if (WordsInChunk > 1) next_q <= HoldBits'({out_data_i, next_q[63:0]} >> CodeWidth);
      else next_q <= HoldBits'(out_data_i);
    end
    if (move) hold_q <= next_q;
    else if (send) hold_q <= hold_q >> BusWidth;
  end

  logic fifo_valid, fifo_ready;
  ahcq_fifo #(
    .Width(BusWidth),
    .Depth(16)
  ) u_fifo (
    .clk_i,
    .rst_ni,
    .valid_i(fifo_in_valid),
    .ready_o(fifo_in_ready),
    .data_i (hold_q[BusWidth-1:0]),
    .valid_o(fifo_valid),
    .ready_i(fifo_ready),
    .data_o (w_data_o)
  );

  // Writer: one burst after the other; answers are only counted.
  logic burst_busy, burst_valid, sending_q, sent;
  logic [7:0] beats_q;
  logic [7:0] flying_q;
  ahcq_bursts #(
    .BusChunks(BusChunks)
  ) u_bursts (
    .clk_i,
    .rst_ni,
    .start_i,
    .address_i(instr_q.address),
    .stride_i (instr_q.stride),
    .rows_i   (instr_q.rows),
    .length_i (instr_q.length),
    .stop_i   (stop_i || sending_q || flying_q[7]),
    .valid_o  (burst_valid),
    .ready_i  (aw_ready_i),
    .address_o(aw_addr_o),
    .beats_o  (aw_len_o),
    .busy_o   (burst_busy)
  );
  assign aw_valid_o = burst_valid;
  assign w_valid_o = sending_q && fifo_valid;
  assign fifo_ready = sending_q && w_ready_i;
  assign sent = w_valid_o && w_ready_i;
  assign w_last_o = beats_q == '0;
  assign chunks_o = sent ? 3'(BusChunks) : 3'd0;
  assign quiet_o = flying_q == '0 && !sending_q && !aw_valid_o;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      done_q <= 1'b0;
      sending_q <= 1'b0;
      flying_q <= '0;
    end else begin
      if (aw_valid_o && aw_ready_i) sending_q <= 1'b1;
      else if (sent && w_last_o) sending_q <= 1'b0;
      flying_q <= flying_q + 8'(aw_valid_o && aw_ready_i) - 8'(b_valid_i);
      if (start_i) active_q <= 1'b1;
      else if (active_q && !burst_busy && !sending_q && flying_q == '0) active_q <= 1'b0;
      if (active_q && !burst_busy && !sending_q && flying_q == '0) done_q <= 1'b1;
      else if (give_valid_o && give_ready_i) done_q <= 1'b0;
    end
  end
  always_ff @(posedge clk_i) begin
    if (aw_valid_o && aw_ready_i) beats_q <= aw_len_o;
    else if (sent) beats_q <= beats_q - 1'b1;
  end

  assign give_valid_o = done_q;
  assign give_mask_o = instr_q.push;
  assign busy_o = active_q || done_q;
endmodule
