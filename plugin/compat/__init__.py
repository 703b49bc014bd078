"""What trimtab leans on in vLLM, which releases and features it serves with, and repairs for its neighbours."""
