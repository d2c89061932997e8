"""
The online way: one request from the shopper's page to the slate.

Read in this order: `pipeline` (the request, top to bottom), `core.model` (the nouns), `ports` (what it
leans on), `guard` (the one place that awaits a dependency under policy), `bootstrap` (how the parts meet).
`core` decides and touches nothing; `adapters` touch one outside thing each; `edge` speaks HTTP; `cli` and
`supervisor` run it all on one machine.
"""
