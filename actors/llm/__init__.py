"""The LLM actor: one model call a prompt for all who ask, bounded by quotas, told from every fault of a provider.

Owns prompts in flight, their answers for a while, quotas and the embedded model's process. Called by query actors
(``ask``) and the controller. It never knows DNS messages: those are made in ``actors/query/llm_front``.
"""
