"""What this machine is, what is missing, and what to do: `facts` looks, `checks` judges, `edgescribe doctor` prints."""
