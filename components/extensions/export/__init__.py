"""The forms that other servers load an adapter in, but PEFT's: NIM's, llama.cpp's, merged."""
