"""
The contracts two processes must agree about byte by byte.

`tutti/v1` holds the gRPC messages (generated code is committed, a test keeps it fresh); `arrays` turns
them into numpy and back; `history` is the layout of a shopper's history in Redis; `feast_layout` is
Feast's own layout of online features. Pure: nothing here opens a socket or a file. This is the only
package that both the orchestrator and the services import.
"""
