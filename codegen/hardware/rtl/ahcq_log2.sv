// log2_fixed: floor(log2(total / 2**18) * 2**10) by repeated squaring, 0 for totals under 2**18; 25 cycles. A square is
// three products, of halves of the mantissa, in one cycle, and their sum in the next.
module ahcq_log2 (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        valid_i,
  output logic        ready_o,
  input  logic [30:0] total_i,
  output logic        valid_o,
  output logic [13:0] log_o
);
  typedef enum logic [2:0] {Idle, Find, Coarse, Fine, Square, Update} state_e;
  state_e state_q;
  logic [30:0] mantissa_q;
  logic [29:0] high_q;
  logic [30:0] cross_q;
  logic [31:0] low_q;
  logic [61:0] square;
  logic [4:0] whole_q;
  // The leading one is sought in fours, then within its four; the total is doubled, so that it is 32 bits.
  logic [7:0] any_q;
  logic [2:0] group, group_q;
  logic [1:0] zeros;
  logic [31:0] doubled;
  logic [9:0] fraction_q;
  logic [3:0] step_q;
  logic small_q;

  always_comb begin
    group = '0;
    for (int unsigned i = 0; i < 8; i++) if (any_q[i]) group = 3'(i);
    zeros = mantissa_q[30] ? 2'd0 : mantissa_q[29] ? 2'd1 : mantissa_q[28] ? 2'd2 : 2'd3;
  end
  assign doubled = {total_i, 1'b0};

  assign ready_o = state_q == Idle;
  logic [4:0] octave;
  assign octave = whole_q - 5'd18;
  assign square = {high_q, low_q} + {14'b0, cross_q, 17'b0};
  assign log_o = small_q ? '0 : {octave[3:0], fraction_q[8:0], square[61]};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= Idle;
      valid_o <= 1'b0;
    end else begin
      valid_o <= state_q == Square && step_q == 4'd9;
      unique case (state_q)
        Idle: if (valid_i) state_q <= Find;
        Find: state_q <= Coarse;
        Coarse: state_q <= Fine;
        Fine: state_q <= Square;
        Square: state_q <= Update;
        Update: state_q <= valid_o ? Idle : Square;
        default: state_q <= Idle;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    high_q <= 30'(mantissa_q[30:16]) * 30'(mantissa_q[30:16]);
    cross_q <= 31'(mantissa_q[30:16]) * 31'(mantissa_q[15:0]);
    low_q <= 32'(mantissa_q[15:0]) * 32'(mantissa_q[15:0]);
    unique case (state_q)
      Idle: begin
        mantissa_q <= total_i;
        step_q <= '0;
        small_q <= total_i[30:18] == '0;
        for (int unsigned i = 0; i < 8; i++) any_q[i] <= doubled[4*i+:4] != '0;
      end
      Find: group_q <= group;
      Coarse: mantissa_q <= mantissa_q << {~group_q, 2'b0};
      Fine: begin
        mantissa_q <= mantissa_q << zeros;
        whole_q <= {group_q, 2'd2} - 5'(zeros);
      end
      Update: begin
        // a square of 2 or more: take its bit and halve it
        fraction_q <= {fraction_q[8:0], square[61]};
        mantissa_q <= square[61] ? square[61:31] : square[60:30];
        step_q <= step_q + 1'b1;
      end
      default: ;
    endcase
  end
endmodule
