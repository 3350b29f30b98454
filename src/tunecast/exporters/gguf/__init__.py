"""Finetuned models for llama.cpp and Ollama: GGUF files, checked against transformers."""
