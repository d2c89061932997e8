"""Re-ranking: a DCN-v2 over sources, features and history, trained on what retrieval really proposes."""

ROLE = "reranker"
