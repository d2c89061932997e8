"""
`tutti up`: every process of tutti on this machine, started in order, watched, stopped in reverse.

In reading order: `plan` what is started with which arguments (pure) · `redis_server` which Redis · `process` one
child · `readiness` when it counts as started · `supervisor` the order, the restarts, the end · `rolling`
one restart after the other · `control` how it is asked for · `state` what
others can read about it · `reaper` nothing is left when the supervisor is killed · `console` lines with prefixes ·
`errors` what can go wrong · `ports` free ones · `backends` the part a batch needs.

Services are reached by their command lines only; nothing of `services` is imported.
"""
