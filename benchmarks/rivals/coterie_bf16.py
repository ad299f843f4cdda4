"""Coterie's Mult-VAE with the products of its steps in bfloat16, weights and everything else in
float32.
"""

from coterie_multvae import main

if __name__ == "__main__":
    main("bf16")
