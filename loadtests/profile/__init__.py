"""
Where the time of a loaded system goes: every process sampled from outside, at the same time, while it is saturated.

The rule: what decides and draws (`stacks`, `flame`) is pure; what loads and samples is `saturate` and `__main__`.
"""
