"""How fast Bittern is: searches, jobs, training, the service, and what an evaluation costs."""
