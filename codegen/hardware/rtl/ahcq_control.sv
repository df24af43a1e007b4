// Instructions: fetched, checked, queued for each unit, and started when their tokens are there.
module ahcq_control
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned BusChunks = 1,
  parameter int unsigned ActDepth = 16,
  parameter int unsigned WgtDepth = 16,
  parameter int unsigned AccDepth = 16,
  parameter int unsigned VecDepth = 16,
  parameter int unsigned OutDepth = 16,
  parameter int unsigned LgtDepth = 16,
  parameter int unsigned StatDepth = 16
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              start_i,        // of the program
  input  logic              stop_i,
  input  logic              run_i,
  input  logic [31:0]       program_i,
  input  logic [31:0]       length_i,
  input  logic [31:0]       base_i,
  input  logic [31:0]       limit_i,
  output logic              ar_valid_o,
  input  logic              ar_ready_i,
  output logic [31:0]       ar_addr_o,
  input  logic              r_valid_i,
  input  logic [64*BusChunks-1:0] r_data_i,
  input  logic              r_error_i,
  output logic              quiet_o,
  input  logic [3:0]        unit_ready_i,   // could begin an instruction
  output logic [3:0]        unit_start_o,   // begins the one at the head of its queue
  output logic [3:0][255:0] head_o,
  input  logic [3:0]        give_valid_i,
  input  logic [3:0][3:0]   give_mask_i,
  output logic [3:0]        give_ready_o,
  input  logic [3:0]        busy_i,
  output logic              dispatch_o,     // an instruction goes into its queue
  output logic [3:0]        stall_o,
  output logic [3:0]        finish_o,
  output logic              done_o,
  output error_e            error_o,
  output logic [31:0]       index_o
);
  logic instr_valid, instr_ready, instr_error;
  logic [255:0] instr, queue_instr;
  logic [3:0] queue_valid, queue_ready, head_valid;
  logic [3:0][3:0] head_pop;

  ahcq_fetch #(
    .BusChunks(BusChunks)
  ) u_fetch (
    .clk_i,
    .rst_ni,
    .start_i,
    .stop_i,
    .program_i,
    .length_i,
    .ar_valid_o,
    .ar_ready_i,
    .ar_addr_o,
    .r_valid_i,
    .r_data_i,
    .r_error_i,
    .quiet_o,
    .valid_o   (instr_valid),
    .instr_o   (instr),
    .error_o   (instr_error),
    .ready_i   (instr_ready)
  );
  ahcq_check #(
    .Dim      (Dim),
    .BusChunks(BusChunks),
    .ActDepth (ActDepth),
    .WgtDepth (WgtDepth),
    .AccDepth (AccDepth),
    .VecDepth (VecDepth),
    .OutDepth (OutDepth),
    .LgtDepth (LgtDepth),
    .StatDepth(StatDepth)
  ) u_check (
    .clk_i,
    .rst_ni,
    .run_i,
    .length_i,
    .base_i,
    .limit_i,
    .valid_i      (instr_valid),
    .instr_i      (instr),
    .error_i      (instr_error),
    .ready_o      (instr_ready),
    .queue_valid_o(queue_valid),
    .queue_ready_i(queue_ready),
    .queue_instr_o(queue_instr),
    .drained_i    (head_valid == '0 && busy_i == '0),
    .done_o,
    .error_o,
    .index_o
  );
  for (genvar u = 0; u < 4; u++) begin : gen_queue
    ahcq_fifo #(
      .Width(256),
      .Depth(QueueDepth)
    ) u_queue (
      .clk_i,
      .rst_ni,
      .valid_i(queue_valid[u]),
      .ready_o(queue_ready[u]),
      .data_i (queue_instr),
      .valid_o(head_valid[u]),
      .ready_i(unit_start_o[u]),
      .data_o (head_o[u])
    );
    assign head_pop[u] = head_o[u][7:4];
  end
  ahcq_tokens u_tokens (
    .clk_i,
    .rst_ni,
    .stop_i       (!run_i),
    .head_valid_i (head_valid),
    .head_pop_i   (head_pop),
    .ready_i      (unit_ready_i),
    .start_o      (unit_start_o),
    .give_valid_i,
    .give_mask_i,
    .give_ready_o
  );
  assign stall_o = head_valid & unit_ready_i & ~unit_start_o;
  assign finish_o = give_valid_i & give_ready_o;
  assign dispatch_o = instr_ready;
endmodule
