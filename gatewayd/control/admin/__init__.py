"""The admin API: one file a noun, one list of routes in `app`.

What nouns share has one place each: `state` (what a handler is given), `inputs` (body and query, decoded and checked),
`problems` (errors as problem+json), `changes` (a transaction with its audit), `refs` (names and ids to rows), `pages`
(lists by cursor), `admission` (who may ask what; `callers`, `peer`).
"""
