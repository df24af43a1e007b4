// Token counters between every two units: when an instruction may start, and when a finished one may give. That it starts is
// decided one cycle before: no other unit takes its tokens, and a unit that is ready stays so until then.
module ahcq_tokens
  import ahcq_isa_pkg::*;
(
  input  logic            clk_i,
  input  logic            rst_ni,
  input  logic            stop_i,        // nothing starts any more
  input  logic [3:0]      head_valid_i,  // an instruction waits in front of the unit
  input  logic [3:0][3:0] head_pop_i,
  input  logic [3:0]      ready_i,       // the unit could begin
  output logic [3:0]      start_o,
  input  logic [3:0]      give_valid_i,
  input  logic [3:0][3:0] give_mask_i,
  output logic [3:0]      give_ready_o
);
  localparam logic [TokenBits-1:0] Full = '1;

  logic [3:0][3:0][TokenBits-1:0] token_d, token_q;  // [giver][taker]
  logic [3:0][3:0] none_q, full_q;  // of the counters, so that nothing is compared before an instruction starts
  logic [3:0] start, start_q, give;

  always_comb begin
    for (int unsigned u = 0; u < 4; u++) begin
      start[u] = head_valid_i[u] && ready_i[u] && !start_q[u] && !stop_i;
      give_ready_o[u] = 1'b1;
      for (int unsigned v = 0; v < 4; v++) begin
        if (head_pop_i[u][v] && none_q[v][u]) start[u] = 1'b0;
        if (give_mask_i[u][v] && full_q[u][v]) give_ready_o[u] = 1'b0;
      end
    end
  end
  assign start_o = start_q;
  assign give = give_valid_i & give_ready_o;

  always_comb begin
    token_d = token_q;
    for (int unsigned u = 0; u < 4; u++) begin
      for (int unsigned v = 0; v < 4; v++) begin
        token_d[u][v] = token_q[u][v] + TokenBits'(give[u] && give_mask_i[u][v]) -
            TokenBits'(start_q[v] && head_pop_i[v][u]);
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      token_q <= '0;
      none_q <= '1;
      full_q <= '0;
      start_q <= '0;
    end else begin
      start_q <= start;
      token_q <= token_d;
      for (int unsigned u = 0; u < 4; u++) begin
        for (int unsigned v = 0; v < 4; v++) begin
          none_q[u][v] <= token_d[u][v] == '0;
          full_q[u][v] <= token_d[u][v] == Full;
        end
      end
    end
  end
endmodule
