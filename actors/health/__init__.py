"""The health monitor: asks every actor and ingress a real question, and tells the controller what it saw.

It decides nothing and replaces nothing: k failures in a row are an observation, acting on it is the controller's.
May call every stream, the ingresses over UDP, the LLM actors and the controller; is in no query's path.
"""
