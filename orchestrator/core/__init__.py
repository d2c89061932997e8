"""
Decisions without IO: no asyncio, no clock, no sockets, no global randomness; numpy is allowed.

Everything here is given facts and `now`, and returns what should be done.
"""
