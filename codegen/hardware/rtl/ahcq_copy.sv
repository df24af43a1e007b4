// A register of which every user has its own, so that none fans out far: synthesis must not merge what is equal. Vivado reads
// the attribute; for Yosys, `synthesis/yosys.py` keeps the registers of instances called `u_copy`.
(* keep_hierarchy = "yes" *)
module ahcq_copy #(
  parameter int unsigned Width = 1
) (
  input  logic             clk_i,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);
  always_ff @(posedge clk_i) data_o <= data_i;
endmodule
