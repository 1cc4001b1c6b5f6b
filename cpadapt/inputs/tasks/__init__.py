"""Tasks: what a backbone is adapted on, where its examples come from, and how a text becomes tokens.

A task is declared, not programmed: a `TaskSpec` says where the data are, which columns hold the texts and the label,
and, for decoders, what the prompt is. To add a task, write a `TaskSpec` in Python or a TOML file with the same fields.
The tasks in `TASKS`, public and generated, are such files in `bundled`.

A task draws four sets of examples from two source splits (the paper's caps are 1000/500/1000/0):

=====  =====================  ================================================
set    drawn from             decided by
=====  =====================  ================================================
dev    the training split     `data_seed`
train  what dev leaves        `data_seed`
eval   the evaluation split   the cap alone, so all runs are judged on one set
rest   what dev, train leave  `data_seed`, and the task's rule for such rows
=====  =====================  ================================================

No content appears in two sets, or twice in one. Content is the texts, with runs of white space as one space.
"""
