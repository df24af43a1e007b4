// A counter that goes round, with its first and last values as registers: nothing is compared where they are used.
module ahcq_count #(
  parameter int unsigned Width = 12
) (
  input  logic             clk_i,
  input  logic             load_i,
  input  logic [Width-1:0] count_i,  // how many values; at least 1
  input  logic             step_i,
  output logic [Width-1:0] value_o,
  output logic             first_o,
  output logic             last_o
);
  logic [Width-1:0] before_q;  // the value before the last
  logic one_q;

  always_ff @(posedge clk_i) begin
    if (load_i) begin
      before_q <= count_i - Width'(2);
      one_q <= count_i == Width'(1);
      value_o <= '0;
      first_o <= 1'b1;
      last_o <= count_i == Width'(1);
    end else if (step_i) begin
      value_o <= last_o ? '0 : value_o + 1'b1;
      first_o <= last_o;
      last_o <= last_o ? one_q : value_o == before_q;
    end
  end
endmodule
