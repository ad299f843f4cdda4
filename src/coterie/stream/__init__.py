"""Recommending to everybody: histories as a stream in, shards of recommendations out, on this
machine or on many.
"""
