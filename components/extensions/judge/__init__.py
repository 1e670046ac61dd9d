"""An LLM judge and its agreement with people: `win_rate.judge_answers` is the entry point."""
