// AXI4-Lite registers, the state of a run, counters and the watchdog.
module ahcq_regs
  import ahcq_isa_pkg::*;
#(
  parameter logic [31:0] Hash = 32'd0
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        aw_valid_i,
  output logic        aw_ready_o,
  input  logic [7:0]  aw_addr_i,
  input  logic        w_valid_i,
  output logic        w_ready_o,
  input  logic [31:0] w_data_i,
  output logic        b_valid_o,
  input  logic        b_ready_i,
  input  logic        ar_valid_i,
  output logic        ar_ready_o,
  input  logic [7:0]  ar_addr_i,
  output logic        r_valid_o,
  input  logic        r_ready_i,
  output logic [31:0] r_data_o,
  output logic        irq_o,
  output logic        start_o,
  output logic        run_o,
  output logic        stop_o,          // begin nothing new
  output logic        core_rst_no,
  output logic [31:0] program_o,
  output logic [31:0] length_o,
  output logic [31:0] base_o,
  output logic [31:0] limit_o,
  input  logic        done_i,
  input  error_e      error_i,
  input  logic [31:0] index_i,
  input  logic        read_error_i,
  input  logic        write_error_i,
  input  logic        quiet_i,         // no transfer outstanding
  input  logic        progress_i,
  input  logic        feed_i,
  input  logic [2:0]  load_chunks_i,
  input  logic [2:0]  store_chunks_i,
  input  logic [3:0]  busy_i,
  input  logic [3:0]  stall_i,
  input  logic [3:0]  finish_i
);
  // A program that ends well still waits for instructions fetched ahead (Flush) before the core is cleared (Clear).
  typedef enum logic [2:0] {Idle, Run, Flush, Clear, Done, Error, Quieten, Reset} state_e;
  state_e state_d, state_q;
  error_e error_q;
  logic [31:0] index_q, program_q, length_q, base_q, limit_q, watchdog_q, idle_q;
  logic irq_enable_q, irq_q, core_rst_nq;
  logic [7:0] read_addr_q;
  logic write_q, read, read_q, picked_q, start, reset, ended;
  logic [31:0] rdata;
  logic fatal;

  // A write is taken in one cycle and done in the next, before it is answered.
  logic take_write;
  logic [7:0] write_addr_q;
  logic write_control_q, expired_q, progress_q, read_error_q, write_error_q, run_q, stop_q, clear_q;
  logic [31:0] write_data_q;
  assign take_write = aw_valid_i && w_valid_i && !b_valid_o && !write_q;
  assign aw_ready_o = take_write;
  assign w_ready_o = take_write;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) write_q <= 1'b0;
    else write_q <= take_write;
  end
  always_ff @(posedge clk_i) begin
    write_addr_q <= aw_addr_i;
    write_control_q <= aw_addr_i == RegControl;
    write_data_q <= w_data_i;
  end
  assign read = ar_valid_i && !r_valid_o && !read_q && !picked_q;
  assign ar_ready_o = read;
  assign start = write_q && write_control_q && write_data_q[0] && state_q inside {Idle, Done};
  assign reset = write_q && write_control_q && write_data_q[1];
  assign fatal = read_error_q || write_error_q || expired_q;
  assign ended = state_q == Run && (done_i || fatal);

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      Idle, Done: if (start) state_d = Run;
      Run: if (fatal) state_d = Error; else if (done_i) state_d = error_i == ErrNone ? Flush : Error;
      Flush: if (quiet_i) state_d = Clear;
      Clear: state_d = Done;
      Quieten: if (quiet_i) state_d = Reset;
      Reset: state_d = Idle;
      default: ;
    endcase
    if (reset && state_q != Reset) state_d = Quieten;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      run_q <= 1'b0;
      stop_q <= 1'b0;
      expired_q <= 1'b0;
      progress_q <= 1'b1;
      read_error_q <= 1'b0;
      write_error_q <= 1'b0;
      error_q <= ErrNone;
      index_q <= '0;
      program_q <= '0;
      length_q <= '0;
      base_q <= '0;
      limit_q <= '0;
      watchdog_q <= 32'd100000;
      idle_q <= '0;
      irq_enable_q <= 1'b0;
      irq_q <= 1'b0;
      core_rst_nq <= 1'b0;
      b_valid_o <= 1'b0;
      r_valid_o <= 1'b0;
      read_q <= 1'b0;
      picked_q <= 1'b0;
    end else begin
      state_q <= state_d;
      run_q <= state_d == Run;
      stop_q <= state_d inside {Flush, Error, Quieten};
      expired_q <= state_q == Run && watchdog_q != '0 && idle_q == watchdog_q;
      core_rst_nq <= !(state_d inside {Reset, Clear});
      if (start || state_q == Reset) begin
        error_q <= ErrNone;
        index_q <= '0;
      end else if (ended) begin
        index_q <= index_i;
        if (read_error_q) error_q <= ErrBusRead;
        else if (write_error_q) error_q <= ErrBusWrite;
        else error_q <= expired_q ? ErrDeadlock : error_i;
      end
      progress_q <= state_q != Run || progress_i;
      read_error_q <= read_error_i;
      write_error_q <= write_error_i;
      idle_q <= progress_q ? '0 : idle_q + 1'b1;
      if (state_d inside {Done, Error} && state_q != state_d) irq_q <= 1'b1;
      else if (write_q && write_addr_q == RegIrqStatus && write_data_q[0]) irq_q <= 1'b0;
      if (write_q) begin
        unique case (write_addr_q)
          RegIrqEnable: irq_enable_q <= write_data_q[0];
          RegProgram: program_q <= write_data_q;
          RegProgramLength: length_q <= write_data_q;
          RegMemoryBase: base_q <= write_data_q;
          RegMemoryLimit: limit_q <= write_data_q;
          RegWatchdog: watchdog_q <= write_data_q;
          default: ;
        endcase
      end
      if (write_q) b_valid_o <= 1'b1;
      else if (b_ready_i) b_valid_o <= 1'b0;
      read_q <= read;
      picked_q <= read_q;
      if (picked_q) r_valid_o <= 1'b1;
      else if (r_ready_i) r_valid_o <= 1'b0;
    end
  end

  // cycles, array, busy, stall, finished instructions, chunks, in the order of their registers
  localparam int unsigned Counters = 16;
  logic [Counters-1:0][31:0] counter_q;
  // what is read is a counter or another register, each picked one cycle before
  logic [31:0] counter_picked_q, other_picked_q;
  logic is_counter_q;
  logic [Counters-3:0] count, count_q;
  logic [1:0][2:0] chunks_q;
  assign count = {finish_i[3:0], stall_i[3:0], busy_i[3:0], feed_i, 1'b1};
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      counter_q <= '0;
      count_q <= '0;
      chunks_q <= '0;
      clear_q <= 1'b0;
    end else begin
      clear_q <= start;
      count_q <= state_q == Run ? count : '0;
      chunks_q <= state_q == Run ? {store_chunks_i, load_chunks_i} : '0;
      for (int unsigned i = 0; i < Counters; i++) begin
        if (clear_q) counter_q[i] <= '0;
        else if (i < Counters - 2) counter_q[i] <= counter_q[i] + 32'(count_q[i]);
        else counter_q[i] <= counter_q[i] + 32'(chunks_q[i-(Counters-2)]);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (read) read_addr_q <= ar_addr_i;
    counter_picked_q <= counter_q[read_addr_q[5:2]];
    other_picked_q <= rdata;
    is_counter_q <= read_addr_q >= RegCycles && read_addr_q <= RegStoreChunks;
    if (picked_q) r_data_o <= is_counter_q ? counter_picked_q : other_picked_q;
  end

  always_comb begin
    unique case (read_addr_q)
      RegId: rdata = 32'h41484351;
      RegVersion: rdata = Version;
      RegConfigHash: rdata = Hash;
      RegStatus: begin
        rdata = {
          28'd0, state_q inside {Quieten, Reset}, state_q == Error, state_q == Done, state_q inside {Run, Flush, Clear}
        };
      end
      RegError: rdata = 32'(error_q);
      RegErrorIndex: rdata = index_q;
      RegIrqEnable: rdata = 32'(irq_enable_q);
      RegIrqStatus: rdata = 32'(irq_q);
      RegProgram: rdata = program_q;
      RegProgramLength: rdata = length_q;
      RegMemoryBase: rdata = base_q;
      RegMemoryLimit: rdata = limit_q;
      RegWatchdog: rdata = watchdog_q;
      default: rdata = '0;
    endcase
  end

  assign irq_o = irq_q && irq_enable_q;
  assign start_o = start;
  assign run_o = run_q;
  assign stop_o = stop_q;
  assign core_rst_no = core_rst_nq;
  assign program_o = program_q;
  assign length_o = length_q;
  assign base_o = base_q;
  assign limit_o = limit_q;
endmodule
