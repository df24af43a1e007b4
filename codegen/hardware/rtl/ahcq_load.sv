// The LOAD unit: asks for bursts as fast as the bus takes them, aligns the answers and writes them chunk by chunk.
module ahcq_load
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         stop_i,
  input  logic         start_i,
  input  logic [255:0] start_instr_i,
  output logic         ready_o,
  output logic         give_valid_o,
  output logic [3:0]   give_mask_o,
  input  logic         give_ready_i,
  output logic         busy_o,
  output logic         chunk_o,        // a chunk has been loaded
  output logic         quiet_o,
  output logic         ar_valid_o,
  input  logic         ar_ready_i,
  output logic [31:0]  ar_addr_o,
  output logic [7:0]   ar_len_o,
  input  logic         r_valid_i,
  output logic         r_ready_o,
  input  logic [63:0]  r_data_i,
  input  logic         r_last_i,
  input  logic         write_ready_i,  // true where nothing is written
  output write_t       write_o
);
  // Words in a chunk, or chunks in a word.
  localparam int unsigned CodeWidth = 4 * Dim;
  localparam int unsigned WordsInChunk = CodeWidth < 64 ? 64 / CodeWidth : 1;
  localparam int unsigned CodeChunks = CodeWidth > 64 ? CodeWidth / 64 : 1;
  localparam int unsigned VecChunks = Dim / 2;

  load_t fields, instr_q;
  logic active_q, done_q, burst_busy, burst_taken;
  logic [15:0] row_word_q, word_q;
  logic [4:0] part_q, parts;
  logic misaligned_q, fill_q;
  logic [31:0] held_q;
  logic [7:0] flying_q;
  logic [1:0] sub_q;
  logic is_code_q, write, write_last, free, held, step, take, last_sub, last_part, last_chunk, last_row, ends;

  assign fields = start_instr_i;
  assign ready_o = !busy_o;

  ahcq_bursts u_bursts (
    .clk_i,
    .rst_ni,
    .start_i,
    .address_i(instr_q.address),
    .stride_i (instr_q.stride),
    .rows_i   (instr_q.rows),
    .length_i (instr_q.length),
    .stop_i   (stop_i || flying_q[7]),
    .valid_o  (ar_valid_o),
    .ready_i  (ar_ready_i),
    .address_o(ar_addr_o),
    .beats_o  (ar_len_o),
    .busy_o   (burst_busy)
  );
  assign burst_taken = ar_valid_o && ar_ready_i;
  assign quiet_o = flying_q == '0 && !ar_valid_o;

  // A row that starts in the middle of a beat is one beat longer; its first beat only fills the held half.
  memory_e memory;
  assign memory = memory_e'({1'b0, instr_q.memory});
  assign parts = instr_q.memory == 3'(MemVec) ? 5'(VecChunks - 1) : is_code_q ? 5'(CodeChunks - 1) : 5'd0;
  assign last_sub = !is_code_q || sub_q == 2'(WordsInChunk - 1);
  assign last_part = part_q == parts;
  ahcq_count u_chunk (
    .clk_i,
    .load_i (start_i),
    .count_i(fields.length),
    .step_i (take),
    .value_o(),
    .first_o(),
    .last_o (last_chunk)
  );
  ahcq_count u_row (
    .clk_i,
    .load_i (start_i),
    .count_i(fields.rows),
    .step_i (take && last_chunk),
    .value_o(),
    .first_o(),
    .last_o (last_row)
  );
  assign write = active_q && r_valid_i && !fill_q;
  assign step = write && free;
  assign take = step && last_sub;
  assign ends = take && last_chunk && last_row;
  assign r_ready_o = active_q ? fill_q || (free && last_sub) : 1'b1;
  assign chunk_o = take;

  logic [63:0] chunk;
  assign chunk = misaligned_q ? {r_data_i[31:0], held_q} : r_data_i;

  // What is written waits for the scratchpad, so that no beat at the bus does.
  write_t next, oldest;
  always_comb begin
    next.act = memory == MemAct;
    next.wgt = memory == MemWgt;
    next.vec = memory == MemVec;
    next.decode = memory == MemDecode;
    next.encode = memory == MemEncode;
    next.word = word_q;
    next.part = part_q;
    next.data = WordsInChunk == 1 || !is_code_q ? chunk : chunk >> (7'(sub_q) * 7'(CodeWidth % 64));
    write_o = oldest;
    if (!held) {write_o.act, write_o.wgt, write_o.vec, write_o.decode, write_o.encode} = '0;
  end
  ahcq_fifo #(
    .Width($bits(write_t) + 1),
    .Depth(2)
  ) u_writes (
    .clk_i,
    .rst_ni,
    .valid_i(write),
    .ready_o(free),
    .data_i ({ends, next}),
    .valid_o(held),
    .ready_i(write_ready_i),
    .data_o ({write_last, oldest})
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      done_q <= 1'b0;
      flying_q <= '0;
      fill_q <= 1'b0;
    end else begin
      if (start_i) active_q <= 1'b1;
      if (ends) active_q <= 1'b0;
      if (held && write_ready_i && write_last) done_q <= 1'b1;
      else if (give_valid_o && give_ready_i) done_q <= 1'b0;
      flying_q <= flying_q + 8'(burst_taken) - 8'(r_valid_i && r_ready_o && r_last_i);
      if (start_i) fill_q <= fields.address[2];
      else if (r_valid_i && fill_q) fill_q <= 1'b0;
      else if (take && last_chunk) fill_q <= misaligned_q ^ instr_q.stride[2];
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      instr_q <= start_instr_i;
      is_code_q <= fields.memory == 3'(MemAct) || fields.memory == 3'(MemWgt);
      sub_q <= '0;
      part_q <= '0;
      row_word_q <= fields.sp;
      word_q <= fields.sp;
      misaligned_q <= fields.address[2];
    end
    if (r_valid_i && r_ready_o) held_q <= r_data_i[63:32];
    if (step) begin
      sub_q <= last_sub ? '0 : sub_q + 1'b1;
      part_q <= !last_sub ? part_q : last_part ? '0 : part_q + 1'b1;
      if (!last_sub || last_part) word_q <= word_q + 1'b1;
    end
    if (take) begin
      if (last_chunk) begin
        row_word_q <= row_word_q + instr_q.sp_stride;
        word_q <= row_word_q + instr_q.sp_stride;
        misaligned_q <= misaligned_q ^ instr_q.stride[2];
      end
    end
  end

  assign give_valid_o = done_q;
  assign give_mask_o = instr_q.push;
  assign busy_o = active_q || held || done_q;
  // every burst of an instruction is asked for before its last chunk can arrive
  BurstsEnd_A : assert property (@(posedge clk_i) disable iff (!rst_ni) done_q |-> !burst_busy);
endmodule
