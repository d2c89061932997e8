"""
The offline way: data in, artefacts out. Nothing that serves ever imports this package.
"""
