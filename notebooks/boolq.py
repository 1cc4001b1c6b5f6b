# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # On BoolQ, a thousand examples teach little
#
# **Do more components pay on BoolQ, and does LoRA stay ahead?**
#
# At the paper's rates adapters hardly beat giving the commoner answer each time: the best has
# {q}`tasks.adapters.boolq.most` %, and that answer {q}`tasks.majority.boolq` %. So who leads here says little.
# {says}`tasks.majority.boolq < tasks.adapters.boolq.most < tasks.majority.boolq + 2`
#
# {shared}`task.figure.boolq`
#
# All of CP's sizes lie within {q}`tasks.cp_range.boolq|unit`, and below the commoner answer. Yet adapters do learn a
# little: in {term}`balanced accuracy`, which counts both classes the same, they gain {q}`tasks.gain.boolq|unit` over
# the {term}`head` alone (90 % interval {q}`tasks.gain.boolq|interval`).
# {says}`tasks.best.boolq.cp < tasks.majority.boolq and tasks.gain.boolq.low > 0`
# {shared}`task.equal.boolq`
#
# LoRA is ahead at every size, on average by {q}`tasks.lead.boolq|full`, though no single difference is clear after the
# correction. Some sizes aren't shown to learn, so [the claims](claims.ipynb) don't judge it.
# {says}`tasks.least_lead.boolq > 0 and tasks.clear.boolq == 0 and tasks.lead.boolq.low > 0`
# {says}`tasks.taught.boolq < tasks.compared.boolq`
# {shared}`task.training.boolq`
# More steps alone are unlikely to help. {says}`tasks.late.boolq < tasks.early.boolq`
#
# ## How sure?
#
# The rate would change the answer, and so would the data: at [higher rates](rates.ipynb) accuracy is higher, and from
# all of BoolQ's examples [much is learned, and size pays](when_size_pays.ipynb). Dev hardly says which run is better:
# between runs, dev and eval correlate at {q}`tasks.correlation.boolq`. {says}`abs(tasks.correlation.boolq) < 0.3`
# {shared}`task.choice.boolq`
#
# **For you**: first make sure that anything beats the commoner answer; if nothing does, get more examples.
# {shared}`task.folded.boolq`
#
# Next: [errors in full](noise.ipynb).
