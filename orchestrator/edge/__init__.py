"""
The HTTP edge: what a storefront calls, and the page that shows what it would see.

Way of a request: `middleware` (id, size, timing, counting) → `routes` → `parse` (bytes → checked fields) →
`translate` (fields → Query) → pipeline → `encode` (Slate → bytes). Whatever goes wrong leaves through
`problems`. Strings exist only here: behind this package items are interned keys.
"""
