"""Tasks: what a backbone is adapted on, where its examples come from, and how a text becomes tokens.

A task is declared, not programmed: a `TaskSpec` names where the data lie, which columns hold the texts
and the label, and, for decoders, a prompt. One's own is a `TaskSpec` in Python or a TOML file of the same fields;
those of `TASKS`, public and generated, are such files in `bundled`, one each.

From a task's two source splits four sets of examples are drawn (the paper's caps are 1000/500/1000/0):

=====  =====================  ================================================
set    drawn from             decided by
=====  =====================  ================================================
dev    the training split     `data_seed`
train  what dev leaves        `data_seed`
eval   the evaluation split   its cap alone, so all runs are judged on one set
rest   what dev, train leave  `data_seed`, and the task's rule for such rows
=====  =====================  ================================================

No content stands in two of them, nor twice in one. Content is the texts, runs of white space made one.
"""
