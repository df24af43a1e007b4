// Reads the program, one instruction a burst, up to eight ahead. A bus error travels with its instruction.
module ahcq_fetch #(
  parameter int unsigned BusChunks = 1
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         start_i,
  input  logic         stop_i,
  input  logic [31:0]  program_i,
  input  logic [31:0]  length_i,
  output logic         ar_valid_o,
  input  logic         ar_ready_i,
  output logic [31:0]  ar_addr_o,
  input  logic         r_valid_i,
  input  logic [64*BusChunks-1:0] r_data_i,
  input  logic         r_error_i,
  output logic         quiet_o,        // nothing asked that is not answered
  output logic         valid_o,
  output logic [255:0] instr_o,
  output logic         error_o,
  input  logic         ready_i
);
  localparam int unsigned Ahead = 8;
  localparam int unsigned Beats = 4 / BusChunks;

  logic [31:0] left_q, address_q;
  logic [3:0] owed_q;      // asked for and not yet taken by the decoder
  logic [3:0] flying_q;    // asked for and not yet arrived
  logic [1:0] beat_q;
  logic [255:0] parts_q, instr;
  logic bad_q, asked, arrived, taken, fifo_ready;

  logic asking_q, more_q;  // an offer stays until it is taken; the next one comes two cycles later
  assign ar_valid_o = asking_q;
  assign ar_addr_o = address_q;
  assign asked = ar_valid_o && ar_ready_i;
  assign arrived = r_valid_i && beat_q == 2'(Beats - 1);
  assign instr = 256'({r_data_i, parts_q} >> (64 * BusChunks));
  assign taken = valid_o && ready_i;
  assign quiet_o = flying_q == '0 && !asking_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      left_q <= '0;
      address_q <= '0;
      owed_q <= '0;
      flying_q <= '0;
      beat_q <= '0;
      bad_q <= 1'b0;
      asking_q <= 1'b0;
      more_q <= 1'b0;
    end else begin
      asking_q <= asking_q ? !ar_ready_i : more_q && owed_q != 4'(Ahead) && !stop_i;
      more_q <= left_q != 32'(asked);
      if (start_i) begin
        left_q <= length_i;
        address_q <= program_i;
      end else if (asked) begin
        left_q <= left_q - 1'b1;
        address_q <= address_q + 32'd32;
      end
      owed_q <= owed_q + 4'(asked) - 4'(taken);
      flying_q <= flying_q + 4'(asked) - 4'(arrived);
      if (r_valid_i) begin
        beat_q <= (beat_q + 1'b1) & 2'(Beats - 1);
        bad_q <= (r_error_i || bad_q) && !arrived;
      end
    end
  end
  always_ff @(posedge clk_i) if (r_valid_i) parts_q <= instr;

  ahcq_fifo #(
    .Width(257),
    .Depth(Ahead)
  ) u_fifo (
    .clk_i,
    .rst_ni,
    .valid_i(arrived),
    .ready_o(fifo_ready),
    .data_i ({r_error_i || bad_q, instr}),
    .valid_o,
    .ready_i,
    .data_o ({error_o, instr_o})
  );

  // room was reserved when the instruction was asked for
  AnswersFit_A : assert property (@(posedge clk_i) disable iff (!rst_ni) arrived |-> fifo_ready);
endmodule
